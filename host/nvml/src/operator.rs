//! NVML as an operator handles it: let go of, and taken up again (design N2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device_api_core::clock::{WallTime, system_wall_time};
use device_api_core::error::ApiError;
use device_api_core::limits::RELEASE_MAX;
use device_api_core::ports::{NvmlControl, NvmlObserver, NvmlStatus, Pending};
use device_api_core::recovery::{self, DriverHold, Release};

use crate::answer;
use crate::control::Control;
use crate::holding::{Hold, Ticket};
use crate::watch::{HungCall, Watch};

/// Handles a running source.
#[derive(Clone, Debug)]
pub struct Operator {
    pub(crate) control: Arc<Control>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) last_told: Arc<LastTold>,
}

/// Stands in where NVML is turned off by configuration.
#[derive(Clone, Copy, Debug)]
pub struct TurnedOff;

pub(crate) fn busy(hung: HungCall) -> DriverHold {
    DriverHold::Busy(told(hung))
}

fn told(hung: HungCall) -> recovery::HungCall {
    recovery::HungCall {
        call: hung.call.to_owned(),
        device: hung.device,
        peer: hung.peer,
        index: hung.index,
        age: hung.age,
    }
}

/// Keeps what the observer was told last.
#[derive(Debug)]
pub(crate) struct LastTold {
    observer: Arc<dyn NvmlObserver>,
    status: Mutex<NvmlStatus>,
}

impl LastTold {
    pub(crate) fn new(observer: Arc<dyn NvmlObserver>) -> Self {
        let why = "not looked for yet".to_owned();
        Self {
            observer,
            status: Mutex::new(NvmlStatus::Missing { why }),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.status(), NvmlStatus::Ready { .. })
    }

    fn status(&self) -> MutexGuard<'_, NvmlStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NvmlObserver for LastTold {
    fn nvml_status(&self, status: NvmlStatus) {
        self.status().clone_from(&status);
        self.observer.nvml_status(status);
    }
}

impl NvmlControl for Operator {
    fn status(&self) -> (NvmlStatus, Vec<recovery::HungCall>) {
        let hung = self.watch.hung().into_iter().map(told).collect();
        let mut status = self.last_told.status().clone();
        if matches!(status, NvmlStatus::Released { .. }) && self.control.hold().is_none() {
            let why = "being taken up again".to_owned();
            status = NvmlStatus::Missing { why };
        }
        (status, hung)
    }

    fn release(&self, release: Release) -> Pending<Result<DriverHold, ApiError>> {
        let hold = match hold(&release) {
            Ok(hold) => hold,
            Err(refused) => return now(Err(refused)),
        };
        // Its thread holds the driver open, whatever we let go of: nothing is given up for that.
        if let Some(hung) = self.watch.hung().into_iter().next() {
            return now(Ok(busy(hung)));
        }
        let (answer, asked) = answer::channel();
        let ticket = self.control.ask_to_release(hold, answer);
        let asking = ticket.map(|ticket| Asking {
            control: self.control.clone(),
            ticket,
            release,
        });
        Box::pin(async move {
            let answer = asked.await;
            drop(asking);
            answer.unwrap_or_else(|| Err(going_down()))
        })
    }

    fn attach(&self) -> Pending<Result<NvmlStatus, ApiError>> {
        let status = self.last_told.status().clone();
        if matches!(status, NvmlStatus::Ready { .. }) && self.control.hold().is_none() {
            return now(Ok(status));
        }
        let (answer, asked) = answer::channel();
        for overtaken in self.control.attach(answer) {
            overtaken.give(Ok(DriverHold::Attached));
        }
        Box::pin(async move { asked.await.ok_or_else(going_down) })
    }
}

impl NvmlControl for TurnedOff {
    fn status(&self) -> (NvmlStatus, Vec<recovery::HungCall>) {
        (NvmlStatus::Disabled, Vec::new())
    }

    fn release(&self, _: Release) -> Pending<Result<DriverHold, ApiError>> {
        now(Err(turned_off()))
    }

    fn attach(&self) -> Pending<Result<NvmlStatus, ApiError>> {
        now(Err(turned_off()))
    }
}

/// Somebody waits for the driver to be let go of. Dropped before it is, it is not.
#[derive(Debug)]
struct Asking {
    control: Arc<Control>,
    ticket: Ticket,
    release: Release,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.control.withdraw(self.ticket) {
            // Who that was is in the line of the call, which comes right after this one and knows no outcome.
            tracing::info!(
                target: "audit",
                method = "ReleaseNvml",
                object = self.release.purpose.as_str(),
                ttl = ?self.release.ttl,
                outcome = "dropped",
                "given up before the driver was let go of, which it is not"
            );
        }
    }
}

fn now<T: Send + 'static>(answer: T) -> Pending<T> {
    Box::pin(std::future::ready(answer))
}

fn turned_off() -> ApiError {
    ApiError::Precondition {
        why: "NVML is turned off (--enable-nvml-provider=false): there is no driver to let go of"
            .to_owned(),
    }
}

fn going_down() -> ApiError {
    ApiError::Unavailable {
        why: "the daemon is going down".to_owned(),
    }
}

fn hold(release: &Release) -> Result<Hold, ApiError> {
    let ttl = release.ttl;
    if ttl.is_zero() || ttl > RELEASE_MAX {
        return Err(ApiError::Invalid {
            field: "ttl",
            why: format!("{ttl:?} is no time within {RELEASE_MAX:?}"),
        });
    }
    Ok(Hold {
        purpose: release.purpose,
        until: after(system_wall_time(), ttl),
        deadline: Instant::now() + ttl,
    })
}

fn after(time: WallTime, duration: Duration) -> WallTime {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    WallTime {
        unix_ns: time.unix_ns.saturating_add(ns),
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::recovery::ReleaseFor;

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl NvmlObserver for Nobody {
        fn nvml_status(&self, _: NvmlStatus) {}
    }

    #[test]
    fn n2_a_release_that_is_given_up_before_it_begins_does_not_begin() {
        let operator = Operator {
            control: Arc::default(),
            watch: Arc::new(Watch::new(Duration::from_secs(3))),
            last_told: Arc::new(LastTold::new(Arc::new(Nobody))),
        };
        let release = |operator: &Operator| {
            operator.release(Release {
                purpose: ReleaseFor::Upgrade,
                ttl: Duration::from_secs(60),
            })
        };
        drop(release(&operator));
        assert_eq!(operator.control.hold(), None);
        let stays = release(&operator);
        let (_, waiting) = operator.control.begin_hold().unwrap();
        drop(stays);
        assert_eq!(waiting.len(), 1);
        assert!(operator.control.hold().is_some(), "it had begun");
    }

    #[test]
    fn n2_a_release_has_an_end() {
        let hold = |ttl| {
            hold(&Release {
                purpose: ReleaseFor::Reset,
                ttl,
            })
        };
        for ttl in [Duration::ZERO, RELEASE_MAX + Duration::from_secs(1)] {
            assert!(
                matches!(hold(ttl), Err(ApiError::Invalid { field: "ttl", .. })),
                "{ttl:?}"
            );
        }
        let held = hold(Duration::from_secs(60)).unwrap();
        assert!(held.until > system_wall_time());
        assert!(hold(RELEASE_MAX).is_ok());
    }
}
