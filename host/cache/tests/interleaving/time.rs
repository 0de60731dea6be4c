//! A clock that stands still, until a thread of the scenario lets every deadline pass.

use std::future::Future;
use std::ops::Add;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shuttle::sync::Mutex;

#[derive(Debug, Default)]
struct Clock {
    passed: bool,
    sleeping: Vec<Waker>,
}

shuttle::lazy_static! {
    static ref CLOCK: Mutex<Clock> = Mutex::new(Clock::default());
}

/// All deadlines pass, now and from now on.
pub(crate) fn pass() {
    let sleeping = {
        let mut clock = CLOCK.lock().expect("no panic");
        clock.passed = true;
        std::mem::take(&mut clock.sleeping)
    };
    for waker in sleeping {
        waker.wake();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, _: Duration) -> Self {
        self
    }
}

/// What is awaited, or that the deadline passed first.
pub(crate) async fn timeout_at<F: Future>(_: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(output) = Pin::as_mut(&mut future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let mut clock = CLOCK.lock().expect("no panic");
        if clock.passed {
            return Poll::Ready(Err(Elapsed));
        }
        clock.sleeping.push(cx.waker().clone());
        Poll::Pending
    })
    .await
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed;
