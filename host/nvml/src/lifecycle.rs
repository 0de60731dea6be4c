//! The thread `nvml`: looks for the library, opens it, lets go of it when the driver goes, and
//! looks again, for ever. State diagram in the crate's documentation.

use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use device_api_core::ids::DeviceUuid;
use device_api_core::ports::NvmlStatus;
use device_api_core::recovery::DriverHold;

use crate::backoff::Backoff;
use crate::control::{Trouble, Wake};
use crate::counters::Counters;
use crate::events::Events;
use crate::holding::Hold;
use crate::inventory::{self, Told};
use crate::library::Library;
use crate::operator::busy;
use crate::poll::Poll;
use crate::readings::Standing;
use crate::session::{Context, Progress, Session};
use crate::watch::Role;
use crate::watchdog::hung_max;

/// Design N2.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// How long a session's threads may take to end: some waits for events. Who takes longer hangs in
/// a call.
const WORKERS_END_MAX: Duration = Duration::from_secs(2);

/// The driver that the last session used.
#[derive(Clone, Debug)]
struct Served {
    driver: Arc<str>,
    since: Instant,
    /// Rounds of readings before it.
    polls: u64,
}

#[derive(Debug)]
pub(crate) struct Lifecycle {
    context: Context,
    /// Why NVML is missing, as last told.
    missing: Option<String>,
    served: Option<Served>,
    /// How it was seen since then that the driver was not loaded, or another was.
    gone: Option<String>,
    /// GPUs of which the last readings stay, as the driver was let go of, and which were not asked since.
    kept: Vec<DeviceUuid>,
}

impl Lifecycle {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            missing: None,
            served: None,
            gone: None,
            kept: Vec::new(),
        }
    }

    /// Runs until the source is stopped.
    pub(crate) fn run(mut self) {
        let mut retry = Backoff::new(RETRY_MIN, RETRY_MAX);
        while !self.context.control.is_stopping() {
            if self.context.control.hold().is_some() {
                self.stay_released();
                retry.reset();
                continue;
            }
            if self.context.control.begin_attempt() {
                retry.reset();
            }
            let before = Instant::now();
            let end = self.try_session();
            let polls = self.context.counters.get().polls;
            let served = self.served.as_ref();
            // A session that got as far as reading was a good one, and one that lasted is worth a look at
            // once: only while the driver is away can it be seen to be.
            let was_good =
                served.is_some_and(|served| served.since >= before && polls > served.polls);
            let pause = if was_good {
                retry.reset();
                RETRY_MIN.saturating_sub(before.elapsed())
            } else {
                retry.next()
            };
            match end {
                End::Stopped => return,
                End::Release => {}
                End::Missing(why) => {
                    self.give_up_kept();
                    self.report_missing(why);
                    self.context.control.pause_attempts(pause);
                }
            }
        }
    }

    /// Opens the library and serves until it has to be dropped.
    fn try_session(&mut self) -> End {
        match Library::open(&self.context.config) {
            Ok(library) => self.session(library),
            Err(error) => {
                let why = one_line(&error);
                if self.served.is_some() && error.is_driver_gone() {
                    self.gone.get_or_insert_with(|| why.clone());
                }
                End::Missing(why)
            }
        }
    }

    fn session(&mut self, library: Library) -> End {
        Counters::add(&self.context.counters.sessions);
        self.context.devices.detach();
        self.context.hearing.forget();
        let id = self.context.control.begin_session();
        let library = Arc::new(library);
        let began = inventory::driver_version(library.nvml())
            .and_then(|driver| Ok((driver, inventory::count(&library)?)));
        let (driver, count) = match began {
            Ok((driver, count)) => (self.driver(driver), count),
            Err(failed) => return End::Missing(failed.to_string()),
        };
        self.take_driver(&driver);
        let progress = Progress {
            unlisted: (0..count).collect(),
            ..Progress::default()
        };
        let session = Session {
            id,
            library,
            driver,
            context: self.context.clone(),
            progress: Arc::new(progress.into()),
        };
        self.serve(&session)
    }

    /// Its version: as before where NVML does not say, so that a failed call is taken for no other driver.
    fn driver(&self, told: Told<String>) -> Arc<str> {
        let before = self.served.as_ref().map(|served| &*served.driver);
        told.or_text(before.unwrap_or_default().to_owned()).into()
    }

    /// Notes which driver is used, and whether it is another load of it than before.
    fn take_driver(&mut self, driver: &Arc<str>) {
        let context = &self.context;
        if let Some(before) = self.served.take()
            && before.driver != *driver
            && !before.driver.is_empty()
        {
            let evidence = format!(
                "driver {driver} is in use, and was {} before",
                before.driver
            );
            self.gone = Some(evidence);
            context.watch.forget_absent();
        }
        if let Some(evidence) = self.gone.take() {
            let evidence = format!("NVML answers again after: {evidence}");
            context.devices.driver_reloaded(&evidence);
        }
        self.served = Some(Served {
            driver: Arc::clone(driver),
            since: Instant::now(),
            polls: context.counters.get().polls,
        });
    }

    fn serve(&mut self, session: &Session) -> End {
        let control = &session.context.control;
        let mut wake = match start_poll(session, control.number(Role::Poll)) {
            Ok(()) => control.wait_for_work(session.id),
            Err(why) => Wake::End(Trouble::Over(why)),
        };
        while let Wake::Replace(role) = wake {
            replace(session, role);
            wake = control.wait_for_work(session.id);
        }
        // Whatever was missing before is not any more.
        if session.progress().is_ready() {
            self.missing = None;
            self.kept.clear();
        }
        control.end_session(session.id, Trouble::Over("over".to_owned()));
        session.context.hearing.forget();
        let mut without = Vec::new();
        let end = match wake {
            Wake::Stop | Wake::Replace(_) => End::Stopped,
            Wake::Release => End::Release,
            Wake::End(trouble) => {
                without = self.lost_touch(&trouble);
                End::Missing(trouble.why().to_owned())
            }
        };
        let watch = &session.context.watch;
        if !control.wait_for_workers(WORKERS_END_MAX, || watch.hung_workers()) {
            tracing::error!(library = %session.library.path, "an NVML call hangs; the library stays loaded");
        }
        // Not while a thread of the session may be telling what it has just read.
        for uuid in &without {
            session.context.stand(uuid, Standing::DriverGone);
        }
        end
    }

    /// Nobody can say how they are until the library answers again; those of which it is known that their driver is gone.
    fn lost_touch(&self, trouble: &Trouble) -> Vec<DeviceUuid> {
        let uuids: Vec<_> = self
            .context
            .devices
            .live()
            .into_iter()
            .map(|(uuid, ..)| uuid)
            .collect();
        self.context.unsure(&uuids);
        match trouble {
            Trouble::DriverGone(_) => uuids,
            Trouble::Over(_) => Vec::new(),
        }
    }

    /// Leaves the driver alone until an operator attaches again, or the time is over (design N2). What is
    /// known of the GPUs stands for a while; then nobody knows.
    fn stay_released(&mut self) {
        let context = self.context.clone();
        // A call hangs, or began to on the way out: its thread has the driver open.
        let hung = || {
            context
                .watch
                .longest()
                .filter(|_| context.control.has_workers())
        };
        if let Some(hung) = hung() {
            tracing::warn!("NVML can't be let go of: {hung}");
            for answer in context.control.end_hold() {
                answer.give(Ok(busy(hung.clone())));
            }
            return;
        }
        // Who asked for it may have given up meanwhile.
        let mut held = context.control.begin_hold();
        if held.is_none() {
            return;
        }
        let uuids = context.devices.uuids();
        for uuid in &uuids {
            context.stand(uuid, Standing::Released);
        }
        let stale_at = Instant::now() + context.config.stale_after;
        let mut is_stale = false;
        let mut told = None;
        while let Some((hold, waiting)) = held {
            if context.control.is_stopping() {
                return;
            }
            if told != Some(hold) {
                told = Some(hold);
                self.report_released(hold);
            }
            for answer in waiting {
                answer.give(Ok(DriverHold::Released { until: hold.until }));
            }
            let now = Instant::now();
            if now >= hold.deadline {
                tracing::warn!(
                    purpose = hold.purpose.as_str(),
                    "the time for which NVML was let go of is over; it is taken up again"
                );
                drop(context.control.end_hold());
                break;
            }
            if !is_stale && now >= stale_at {
                is_stale = true;
                context.unsure(&uuids);
            }
            let next = if is_stale {
                hold.deadline
            } else {
                hold.deadline.min(stale_at)
            };
            context
                .control
                .wait_held(hold, next.saturating_duration_since(now));
            held = context.control.begin_hold();
        }
        self.missing = None;
        self.kept = uuids;
    }

    /// It was to be taken up again, and is not there: nobody lets go of it any more.
    fn give_up_kept(&mut self) {
        let kept = mem::take(&mut self.kept);
        self.context.unsure(&kept);
        for uuid in &kept {
            self.context.stand(uuid, Standing::DriverGone);
        }
    }

    fn report_released(&self, hold: Hold) {
        tracing::info!(purpose = hold.purpose.as_str(), "NVML is let go of");
        let status = NvmlStatus::Released {
            purpose: hold.purpose,
            until: hold.until,
        };
        self.context.observer.nvml_status(status.clone());
        // Somebody attached, and then somebody released.
        for answer in self.context.control.all_attaching() {
            answer.give(status.clone());
        }
    }

    /// Told when it changes, not at each attempt; to who waits for the attempt, in any case.
    fn report_missing(&mut self, why: String) {
        let status = NvmlStatus::Missing { why: why.clone() };
        if self.missing.as_ref() != Some(&why) {
            tracing::warn!("no NVML, looking for it again: {why}");
            self.missing = Some(why);
            self.context.observer.nvml_status(status.clone());
        }
        for answer in self.context.control.attempted() {
            answer.give(status.clone());
        }
    }
}

/// How a session, or the attempt at one, ended.
#[derive(Debug)]
enum End {
    Stopped,
    Release,
    /// And is to be tried again, as NVML is missing: why.
    Missing(String),
}

fn start_poll(session: &Session, number: u64) -> Result<(), String> {
    let poll = Poll::new(session.clone(), number);
    spawn(session, (Role::Poll, number), move || poll.run())
}

/// Puts another thread in the place of one that hangs, where there may be another.
fn replace(session: &Session, role: Role) {
    let context = &session.context;
    let hangs = context
        .watch
        .thread_hangs(role, context.control.number(role))
        .is_some();
    if !hangs || context.watch.hung_threads(role) >= hung_max(role) {
        return;
    }
    let number = context.control.supersede(role);
    tracing::info!(
        thread = role.as_str(),
        number,
        "another thread takes the place of one that hangs in NVML"
    );
    let started = match role {
        Role::Poll => {
            // Where it hung while it registered for events, nobody listens yet.
            start_poll(session, number)
        }
        Role::Events => listen_again(session, number),
        Role::Life => Ok(()),
    };
    if let Err(why) = started {
        tracing::error!("{why}");
    }
}

fn listen_again(session: &Session, number: u64) -> Result<(), String> {
    let of_thread = session.clone();
    spawn(
        session,
        (Role::Events, number),
        move || match Events::open(of_thread.clone(), number) {
            Ok(events) => events.run(),
            Err(failed) if of_thread.is_current(Role::Events, number) => {
                let why = format!("no events any more: {failed}");
                of_thread
                    .context
                    .control
                    .end_session(of_thread.id, Trouble::Over(why));
            }
            Err(_) => {}
        },
    )
}

pub(crate) fn spawn(
    session: &Session,
    (role, number): (Role, u64),
    run: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    let name = role.as_str();
    let context = &session.context;
    let worker = context.control.worker(session.id, name, (role, number));
    let watch = Arc::clone(&context.watch);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let entered = watch.enter(role, number);
        run();
        // Last, when `run` has let go of the library: whoever waits for it then closes it.
        drop(entered);
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
