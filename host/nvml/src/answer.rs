//! An answer to come, without an executor: whoever asked awaits it, a plain thread gives it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    /// Nobody will answer any more.
    is_over: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Shared<T>(Mutex<State<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the answer. Dropped without, the asker learns that there is none.
#[derive(Debug)]
pub(crate) struct Answer<T>(Arc<Shared<T>>);

/// `None`: nobody answered.
#[derive(Debug)]
pub(crate) struct Asked<T>(Arc<Shared<T>>);

pub(crate) fn channel<T>() -> (Answer<T>, Asked<T>) {
    let shared = Arc::new(Shared(Mutex::new(State {
        value: None,
        is_over: false,
        waker: None,
    })));
    (Answer(Arc::clone(&shared)), Asked(shared))
}

impl<T> Answer<T> {
    pub(crate) fn give(self, value: T) {
        self.0.lock().value = Some(value);
    }

    /// Whether somebody still waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.is_over = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Asked<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if state.is_over {
            return Poll::Ready(state.value.take());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;
    use std::thread::{self, Thread};

    use super::*;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait<T>(mut asked: Asked<T>) -> Option<T> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut asked).poll(&mut context) {
                Poll::Ready(value) => return value,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn an_answer_arrives_and_so_does_its_absence() {
        let (answer, asked) = channel();
        let giver = thread::spawn(move || answer.give(7));
        assert_eq!(wait(asked), Some(7));
        giver.join().unwrap();
        let (answer, asked) = channel::<u32>();
        drop(answer);
        assert_eq!(wait(asked), None);
    }
}
