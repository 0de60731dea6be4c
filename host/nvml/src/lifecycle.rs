//! The thread `nvml`: looks for the library, opens it, lets go of it when the driver goes, and
//! looks again, for ever. State diagram in the crate's documentation.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{NvmlObserver, NvmlStatus, SignalSink};

use crate::call::CallFailed;
use crate::config::Config;
use crate::control::{Backoff, Control};
use crate::counters::{Counters, Counts};
use crate::devices::Devices;
use crate::events::Events;
use crate::inventory;
use crate::library::Library;
use crate::poll::Poll;
use crate::session::{Context, Session};

/// Design N2.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// How long a session's threads may take to end: some waits for events. Who takes longer hangs in
/// a call.
const WORKERS_END_MAX: Duration = Duration::from_secs(2);

/// How long [`Handle::stop`] takes at most: the threads' ends, and NVML's own shutdown.
pub const STOP_MAX: Duration = Duration::from_secs(3);

/// The NVML source.
#[derive(Debug)]
pub struct Nvml;

/// A running source. Dropping it lets the source end on its own; [`Handle::stop`] waits for that.
#[derive(Debug)]
pub struct Handle {
    control: Arc<Control>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// How the source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Cleanly,
    /// An NVML call hangs: its thread was left behind, and the library with it.
    Hung,
}

impl Nvml {
    /// Starts the source and returns at once; whether there is an NVML, `observer` is told.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(
        config: Config,
        sink: Arc<dyn SignalSink>,
        observer: Arc<dyn NvmlObserver>,
    ) -> io::Result<Handle> {
        let control = Arc::new(Control::default());
        let counters = Arc::new(Counters::default());
        let context = Context {
            config: Arc::new(config),
            control: Arc::clone(&control),
            counters: Arc::clone(&counters),
            devices: Arc::new(Devices::default()),
            sink,
        };
        let ended = Ended(Arc::clone(&control));
        let thread = thread::Builder::new()
            .name("nvml".to_owned())
            .spawn(move || {
                let _ended = ended;
                Lifecycle {
                    context,
                    observer,
                    missing: None,
                }
                .run();
            })?;
        Ok(Handle {
            control,
            counters,
            thread: Some(thread),
        })
    }
}

impl Handle {
    pub fn counts(&self) -> Counts {
        self.counters.get()
    }

    /// The counters, to be read for as long as one likes.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Stops the source, within [`STOP_MAX`]. Blocks: not for an async worker.
    pub fn stop(mut self) -> Stopped {
        self.control.stop();
        if !self.control.wait_for_end(STOP_MAX) {
            tracing::error!("an NVML call hangs; leaving its thread and the library behind");
            return Stopped::Hung;
        }
        // The thread nvml has said so when it gave up waiting.
        if self.control.has_workers() {
            return Stopped::Hung;
        }
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the thread nvml panicked");
        }
        Stopped::Cleanly
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.control.stop();
    }
}

/// Says that the thread is over, also where it panicked.
#[derive(Debug)]
struct Ended(Arc<Control>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}

#[derive(Debug)]
struct Lifecycle {
    context: Context,
    observer: Arc<dyn NvmlObserver>,
    /// Why NVML is missing, as last told.
    missing: Option<String>,
}

impl Lifecycle {
    fn run(mut self) {
        let mut retry = Backoff::new(RETRY_MIN, RETRY_MAX);
        while !self.context.control.is_stopping() {
            let polls = self.context.counters.get().polls;
            let Some(why) = self.try_session() else {
                return;
            };
            // A session that got as far as reading was a good one.
            if self.context.counters.get().polls > polls {
                retry.reset();
            }
            self.report_missing(why);
            if !self.context.control.pause_until_stop(retry.next()) {
                return;
            }
        }
    }

    /// Opens the library and serves until it has to be dropped; says why. `None`: stopped.
    fn try_session(&mut self) -> Option<String> {
        match Library::open(&self.context.config) {
            Ok(library) => self.session(library),
            Err(error) => Some(one_line(&error)),
        }
    }

    fn session(&mut self, library: Library) -> Option<String> {
        Counters::add(&self.context.counters.sessions);
        self.context.devices.detach();
        let id = self.context.control.begin_session();
        let library = Arc::new(library);
        let session = Session {
            id,
            library,
            context: self.context.clone(),
        };
        let why = match self.begin(&session) {
            Ok(()) => self.context.control.wait_for_trouble(id),
            Err(why) => Some(why),
        };
        self.context.control.end_session(id, "over");
        if why.is_some() {
            // Nobody can say how they are until the library answers again.
            let live = self.context.devices.live();
            let uuids: Vec<DeviceUuid> = live.into_iter().map(|(uuid, ..)| uuid).collect();
            self.context.sink.probing(&uuids);
        }
        if !self.context.control.wait_for_workers(WORKERS_END_MAX) {
            tracing::error!(library = %session.library.path, "an NVML call hangs; the library stays loaded");
        }
        why
    }

    /// Registers for events, takes the inventory and lets the session's threads go.
    fn begin(&mut self, session: &Session) -> Result<(), String> {
        let told = |failed: CallFailed| failed.to_string();
        let driver = inventory::driver_version(session.library.nvml()).map_err(told)?;
        let inventory = inventory::take(&session.library).map_err(told)?;
        for found in &inventory.found {
            session
                .context
                .devices
                .found(&found.info.uuid, found.handle);
        }
        let events = Events::open(session.clone());
        let gpus = inventory.found.len();
        for found in inventory.found {
            if self.context.control.is_stopping() {
                return Ok(());
            }
            session.announce(found);
        }
        self.report_absent(session);
        self.report_ready(session, driver, gpus);
        match events {
            Ok(events) => spawn(session, "nvml-events", move || events.run())?,
            Err(failed) => tracing::warn!(
                "no NVML events, the kernel log is the only source of XIDs: {failed}"
            ),
        }
        let poll = Poll::new(session.clone(), inventory.mute);
        spawn(session, "nvml-poll", move || poll.run())
    }

    /// GPUs of an earlier session that are not in this one's inventory.
    fn report_absent(&self, session: &Session) {
        for known in self.context.devices.all() {
            if known.handle.is_none() {
                let evidence = "NVML was opened again, and no GPU there answers to this UUID";
                session.lost(&known.uuid, evidence.to_owned(), None);
            }
        }
    }

    fn report_ready(&mut self, session: &Session, driver: String, gpus: usize) {
        let Library {
            path, simulated, ..
        } = &*session.library;
        tracing::info!(library = %path, %driver, gpus, simulated, "NVML is in use");
        self.missing = None;
        let library = path.clone();
        self.observer.nvml_status(NvmlStatus::Ready {
            library,
            driver,
            gpus,
            simulated: *simulated,
        });
    }

    /// Told when it changes, not at each attempt.
    fn report_missing(&mut self, why: String) {
        if self.missing.as_ref() == Some(&why) {
            return;
        }
        tracing::warn!("no NVML, looking for it again: {why}");
        self.missing = Some(why.clone());
        self.observer.nvml_status(NvmlStatus::Missing { why });
    }
}

fn spawn(
    session: &Session,
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    let worker = session.context.control.worker(session.id, name);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        run();
        // Last, when `run` has let go of the library: whoever waits for it then closes it.
        drop(worker);
    });
    // Not joined: a thread may hang, so `Control` counts them instead.
    thread
        .map(drop)
        .map_err(|error| format!("no thread for {name}: {error}"))
}

/// An error and its sources, each of which prints itself only.
fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}
