//! An answer to come, without a runtime: one value, one waiter.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use device_api_core::error::ApiError;
use device_api_core::policy_status::ReloadReport;

use crate::loaded::lock;

pub(crate) type Answer = Result<ReloadReport, ApiError>;

#[derive(Debug, Default)]
struct Slot {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// Gives the answer, once; dropped without one it says that nobody is there.
#[derive(Debug)]
pub(crate) struct Promise(Arc<Mutex<Slot>>);

/// Waits for it.
#[derive(Debug)]
pub(crate) struct Awaited(Arc<Mutex<Slot>>);

pub(crate) fn promise() -> (Promise, Awaited) {
    let slot = Arc::<Mutex<Slot>>::default();
    (Promise(Arc::clone(&slot)), Awaited(slot))
}

impl Promise {
    pub(crate) fn keep(self, answer: Answer) {
        self.fill(answer);
    }

    fn fill(&self, answer: Answer) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.answer.get_or_insert(answer);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // The first answer counts.
        self.fill(Err(ApiError::Unavailable {
            why: "the policy host gave no answer: the daemon goes down, or the host failed, which its log tells"
                .to_owned(),
        }));
    }
}

impl Future for Awaited {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut slot = lock(&self.0);
        match &slot.answer {
            Some(answer) => Poll::Ready(answer.clone()),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
impl Awaited {
    pub(crate) fn take_now(&mut self) -> Option<Answer> {
        lock(&self.0).answer.clone()
    }
}
