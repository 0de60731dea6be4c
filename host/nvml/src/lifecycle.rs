//! The thread `nvml`: looks for the library, opens it, lets go of it when the driver goes, and
//! looks again, for ever. State diagram in the crate's documentation.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use device_api_core::ports::NvmlStatus;
use device_api_core::recovery::{DriverHold, ReleaseFor};

use crate::backoff::Backoff;
use crate::control::{Hold, Trouble, Wake};
use crate::counters::Counters;
use crate::events::Events;
use crate::inventory;
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
}

impl Lifecycle {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            missing: None,
            served: None,
            gone: None,
        }
    }

    /// Runs until the source is stopped.
    pub(crate) fn run(mut self) {
        let mut retry = Backoff::new(RETRY_MIN, RETRY_MAX);
        while !self.context.control.is_stopping() {
            if let Some(hold) = self.context.control.hold() {
                self.stay_released(hold);
                retry.reset();
                continue;
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
                if self.served.is_some() {
                    if error.is_driver_gone() {
                        self.gone.get_or_insert_with(|| why.clone());
                    }
                    // It may have been loaded anew by the time that the library is back.
                    self.context.devices.forget_counters();
                }
                End::Missing(why)
            }
        }
    }

    fn session(&mut self, library: Library) -> End {
        Counters::add(&self.context.counters.sessions);
        self.context.devices.detach();
        let id = self.context.control.begin_session();
        let library = Arc::new(library);
        let began = inventory::driver_version(library.nvml())
            .and_then(|driver| Ok((driver, inventory::count(&library)?)));
        let (driver, count) = match began {
            Ok((driver, count)) => (Arc::<str>::from(driver), count),
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

    /// Notes which driver is used, and whether it is another load of it than before.
    fn take_driver(&mut self, driver: &Arc<str>) {
        let context = &self.context;
        if let Some(before) = self.served.take()
            && before.driver != *driver
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
        if session.progress().ready {
            self.missing = None;
        }
        control.end_session(session.id, Trouble::Over("over".to_owned()));
        let end = match wake {
            Wake::Stop | Wake::Replace(_) => End::Stopped,
            Wake::Release => End::Release,
            Wake::End(trouble) => {
                self.lost_touch(&trouble);
                End::Missing(trouble.why().to_owned())
            }
        };
        let watch = &session.context.watch;
        if !control.wait_for_workers(WORKERS_END_MAX, || watch.hung_workers()) {
            tracing::error!(library = %session.library.path, "an NVML call hangs; the library stays loaded");
        }
        end
    }

    /// Nobody can say how they are until the library answers again.
    fn lost_touch(&self, trouble: &Trouble) {
        let uuids: Vec<_> = self
            .context
            .devices
            .live()
            .into_iter()
            .map(|(uuid, ..)| uuid)
            .collect();
        self.context.unsure(&uuids);
        if let Trouble::DriverGone(_) = trouble {
            for uuid in &uuids {
                self.context.stand(uuid, Standing::DriverGone);
            }
        }
    }

    /// Leaves the driver alone until an operator attaches again, or the time is over (design N2). What is
    /// known of the GPUs stands for a while; then nobody knows.
    fn stay_released(&mut self, hold: Hold) {
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
        let uuids = context.devices.uuids();
        for uuid in &uuids {
            context.stand(uuid, Standing::Released);
        }
        match hold.purpose {
            ReleaseFor::Reset => context.devices.released_for_reset(),
            // Counters of a driver that was loaded anew begin at zero; that is no reset.
            ReleaseFor::Upgrade => context.devices.forget_counters(),
        }
        let stale_at = Instant::now() + context.config.stale_after;
        let mut is_stale = false;
        let mut told = None;
        while let Some(hold) = context.control.hold() {
            if context.control.is_stopping() {
                return;
            }
            if told != Some(hold) {
                told = Some(hold);
                self.report_released(hold);
            }
            for answer in context.control.take_waiting() {
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
        }
        self.missing = None;
    }

    fn report_released(&self, hold: Hold) {
        tracing::info!(purpose = hold.purpose.as_str(), "NVML is let go of");
        self.context.observer.nvml_status(NvmlStatus::Released {
            purpose: hold.purpose,
            until: hold.until,
        });
    }

    /// Told when it changes, not at each attempt.
    fn report_missing(&mut self, why: String) {
        if self.missing.as_ref() == Some(&why) {
            return;
        }
        tracing::warn!("no NVML, looking for it again: {why}");
        self.missing = Some(why.clone());
        self.context
            .observer
            .nvml_status(NvmlStatus::Missing { why });
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
        ?role,
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
    let name = match role {
        Role::Poll => "nvml-poll",
        Role::Events => "nvml-events",
        Role::Life => "nvml",
    };
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
