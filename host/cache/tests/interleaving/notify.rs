//! `Notify` as `barrier.rs` uses it, and no more: a waiter is woken by `notify_waiters` if it was
//! enabled before. (tokio's promises that from the moment `notified` is called.)

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, Ordering};

shuttle::lazy_static! {
    static ref DEAF: AtomicBool = AtomicBool::new(false);
}

/// For the rest of this execution `enable` does nothing.
pub(crate) fn be_deaf() {
    DEAF.store(true, Ordering::SeqCst);
}

/// Waiters by number, each with whom to wake.
#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    waiting: Vec<(u64, Option<Waker>)>,
}

#[derive(Debug)]
pub(crate) struct Notify {
    waiters: Mutex<Waiters>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self {
            waiters: Mutex::new(Waiters::default()),
        }
    }

    pub(crate) fn notify_waiters(&self) {
        let woken = std::mem::take(&mut self.waiters.lock().expect("no panic").waiting);
        for waker in woken.into_iter().filter_map(|(_, waker)| waker) {
            waker.wake();
        }
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            number: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    /// Once it is enabled; woken when it is no more among the waiting.
    number: Option<u64>,
}

impl Notified<'_> {
    pub(crate) fn enable(mut self: Pin<&mut Self>) -> bool {
        if !DEAF.load(Ordering::SeqCst) {
            self.register(None);
        }
        false
    }

    fn register(&mut self, waker: Option<Waker>) {
        let mut waiters = self.notify.waiters.lock().expect("no panic");
        waiters.next += 1;
        let number = waiters.next;
        waiters.waiting.push((number, waker));
        self.number = Some(number);
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(number) = self.number else {
            self.register(Some(cx.waker().clone()));
            return Poll::Pending;
        };
        let mut waiters = self.notify.waiters.lock().expect("no panic");
        match waiters.waiting.iter_mut().find(|(n, _)| *n == number) {
            Some((_, waker)) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && let Ok(mut waiters) = self.notify.waiters.lock()
        {
            waiters.waiting.retain(|(n, _)| *n != number);
        }
    }
}
