//! Of the barrier on the real clock and the real `Notify`.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use device_api_core::ids::{DeviceUuid, SignalSeq};

use crate::barrier::Barrier;

fn gpu(n: u32) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{n}"))
}

const BOUND: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn c2_a_read_waits_for_what_was_observed_before_it_began_and_for_nothing_later() {
    let barrier = Barrier::new();
    assert!(barrier.waits(None).is_empty());
    barrier.raise(&gpu(0), SignalSeq(1));
    let waits = barrier.waits(Some(&gpu(0)));
    assert_eq!(waits, [(gpu(0), SignalSeq(1))]);
    assert!(
        barrier.waits(Some(&gpu(1))).is_empty(),
        "another GPU's readers never wait"
    );

    let mut read = pin!(barrier.wait(waits, BOUND));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut cx).is_pending());
    // A storm goes on; the read waits for signal 1 alone.
    barrier.raise(&gpu(0), SignalSeq(2));
    assert!(read.as_mut().poll(&mut cx).is_pending());
    barrier.settle(&gpu(0), SignalSeq(1));
    assert_eq!(read.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    assert_eq!(barrier.waits(None), [(gpu(0), SignalSeq(2))]);
    barrier.settle(&gpu(0), SignalSeq(2));
    assert!(barrier.waits(None).is_empty());
}

#[tokio::test(start_paused = true)]
async fn c3_a_read_waits_at_most_the_bound_and_says_what_is_overdue() {
    let barrier = Barrier::new();
    barrier.raise(&gpu(3), SignalSeq(9));
    let started = tokio::time::Instant::now();
    let overdue = barrier.wait(barrier.waits(None), BOUND).await;
    assert_eq!(overdue, Err(vec![(gpu(3), SignalSeq(9))]));
    assert_eq!(started.elapsed(), BOUND);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_of_another_gpu_does_not_release() {
    let barrier = Barrier::new();
    barrier.raise(&gpu(0), SignalSeq(1));
    barrier.raise(&gpu(1), SignalSeq(2));
    let mut read = pin!(barrier.wait(barrier.waits(None), BOUND));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut cx).is_pending());
    barrier.settle(&gpu(1), SignalSeq(2));
    assert!(read.as_mut().poll(&mut cx).is_pending());
    barrier.settle(&gpu(0), SignalSeq(1));
    assert!(read.as_mut().poll(&mut cx).is_ready());
}
