//! The one simulated node of this process: a lock around it, and those who wait for a change.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::abi::code::{self, Code};
use crate::clock::Clock;
use crate::control::server::{self, ServeError};
use crate::environment::{Environment, EnvironmentError, SCENARIO};
use crate::events::{Delivery, Event};
use crate::kmsg::{Format, Kmsg};
use crate::node::{Node, Versions};
use crate::profile::Profile;
use crate::scenario::play;

/// How long a command's answer waits for its events to be handed over.
const DELIVERY_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Sim {
    node: Mutex<Node>,
    /// Signalled at every change that someone may wait for: events, rules, driver, hand-overs.
    changed: Condvar,
    pub(crate) kmsg: Option<Mutex<Kmsg>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{SCENARIO}: {0}")]
    Play(String),
}

static SIM: OnceLock<Sim> = OnceLock::new();
/// Serialises the first `nvmlInit` of two threads.
static STARTING: Mutex<()> = Mutex::new(());

/// The node, once `nvmlInit` succeeded for the first time.
pub(crate) fn started() -> Option<&'static Sim> {
    SIM.get()
}

/// Starts the node if it isn't there yet; the control socket is served from then on.
pub(crate) fn start() -> Result<&'static Sim, StartError> {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sim) = SIM.get() {
        return Ok(sim);
    }
    let environment = Environment::read()?;
    let listener = environment
        .socket
        .as_deref()
        .map(server::bind)
        .transpose()?;
    let format = environment.kmsg_format;
    let kmsg = environment.kmsg.map(|path| Kmsg::new(path, format));
    let mut node = Node::healthy(environment.profile, environment.gpus, environment.versions);
    if let Some(scenario) = &environment.scenario {
        play::check(&node, kmsg.is_some(), scenario).map_err(StartError::Play)?;
        node.clock = Clock::running(environment.speed);
    }
    let sim = SIM.get_or_init(|| Sim::new(node, kmsg));
    if let Some(listener) = listener {
        server::spawn(sim, listener)?;
    }
    if let Some(scenario) = environment.scenario {
        play::spawn(sim, scenario, environment.speed).map_err(StartError::Play)?;
    }
    Ok(sim)
}

impl Sim {
    fn new(node: Node, kmsg: Option<Kmsg>) -> Self {
        Self {
            node: Mutex::new(node),
            changed: Condvar::new(),
            kmsg: kmsg.map(Mutex::new),
        }
    }

    /// A node that nobody sees, to rehearse a scenario on.
    pub(crate) fn scratch(profile: &'static Profile, gpus: u32) -> Self {
        let node = Node::healthy(profile, gpus, Versions::new(None));
        Self::new(node, Some(Kmsg::new("/dev/null".into(), Format::Plain)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits for a change.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// The start of every call: it is late, hangs or fails as it was told to.
    pub(crate) fn enter(&self, call: &str, gpu: Option<u32>) -> Result<MutexGuard<'_, Node>, Code> {
        let mut node = self.lock();
        if let Some(timeline) = &mut node.timeline
            && timeline.called(call, gpu)
        {
            self.notify();
        }
        let delay_ms = node.rules.delay_ms(call, gpu);
        if delay_ms > 0 {
            drop(node);
            thread::sleep(Duration::from_millis(delay_ms));
            node = self.lock();
        }
        while node.rules.hangs(call, gpu) {
            node = self.wait(node, None);
        }
        node.rules.failure(call, gpu).map_or(Ok(node), Err)
    }

    /// Waits for any change, or so long.
    pub(crate) fn wait<'a>(
        &self,
        node: MutexGuard<'a, Node>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, Node> {
        match timeout {
            None => self
                .changed
                .wait(node)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(node, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Waits for the oldest event of a set.
    pub(crate) fn wait_for_event(
        &self,
        call: &str,
        set: usize,
        timeout_ms: u32,
    ) -> Result<Event, Code> {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        let mut node = self.enter(call, None)?;
        if node.timeline.is_some() {
            // A scenario may wait for someone who listens: to all that it registered for, which it has by now.
            self.notify();
        }
        loop {
            if !node.initialised() {
                return Err(code::UNINITIALIZED);
            }
            node.events.get_mut(set).ok_or(code::INVALID_ARGUMENT)?;
            if let Some(event) = node.events.take(set, unix_ns) {
                self.notify();
                return Ok(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(code::TIMEOUT);
            }
            node = self.wait(node, Some(left));
        }
    }

    /// Waits until a command's events were handed over, for at most [`DELIVERY_WAIT`].
    pub(crate) fn wait_for_delivery(&self, batch: u64) -> Option<Delivery> {
        let under_way = |node: &mut Node| {
            node.events
                .delivery(batch)
                .is_some_and(|delivery| !delivery.complete())
        };
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), DELIVERY_WAIT, under_way);
        let mut node = waited.unwrap_or_else(PoisonError::into_inner).0;
        let delivery = node.events.delivery(batch);
        node.events.close(batch);
        delivery
    }
}

/// Nanoseconds of the wall clock since 1970.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
