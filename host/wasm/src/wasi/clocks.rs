//! `wasi:clocks`: the time of the call. No clock of this machine is read, so a replay sees the same.

use wasmtime::component::{ComponentType, Lower};

use super::io::{Pollable, subscribe};
use super::{Definition, WasiHost};

const NS_PER_MS: u64 = 1_000_000;

/// What a look at the monotonic clock takes: a loop that waits for time to pass comes to its end, and
/// no two looks are alike.
const STEP_NS: u64 = 1_000;

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl Datetime {
    fn of_ms(ms: u64) -> Self {
        let below_a_second = u32::try_from(ms % 1_000).unwrap_or_default();
        Self {
            seconds: ms / 1_000,
            nanoseconds: below_a_second * 1_000_000,
        }
    }
}

pub(super) fn define<D: WasiHost>(to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    match (to.interface, to.item) {
        ("wall-clock", "now") => to.wrap(|host, (): ()| Ok((Datetime::of_ms(host.now_ms()),))),
        ("wall-clock", "resolution") => to.wrap(|_, (): ()| Ok((Datetime::of_ms(1),))),
        ("monotonic-clock", "now") => to.wrap(|host, (): ()| {
            advance(host, STEP_NS);
            Ok((now_ns(host),))
        }),
        ("monotonic-clock", "resolution") => to.wrap(|_, (): ()| Ok((STEP_NS,))),
        ("monotonic-clock", "subscribe-instant") => {
            to.wrap(|host, (when_ns,): (u64,)| Ok((subscribe(host, Pollable::At { when_ns })?,)))
        }
        ("monotonic-clock", "subscribe-duration") => to.wrap(|host, (wait_ns,): (u64,)| {
            let when_ns = now_ns(host).saturating_add(wait_ns);
            Ok((subscribe(host, Pollable::At { when_ns })?,))
        }),
        _ => Ok(false),
    }
}

/// Begins at the call's wall-clock time, so it rises from call to call as far as the signals' times do.
pub(super) fn now_ns(host: &mut impl WasiHost) -> u64 {
    let begun_ns = host.now_ms().saturating_mul(NS_PER_MS);
    begun_ns.saturating_add(host.wasi().elapsed_ns)
}

pub(super) fn advance(host: &mut impl WasiHost, ns: u64) {
    let wasi = host.wasi();
    wasi.elapsed_ns = wasi.elapsed_ns.saturating_add(ns);
}

/// Time jumps to an instant, if that is ahead.
pub(super) fn advance_to(host: &mut impl WasiHost, when_ns: u64) {
    let ahead_ns = when_ns.saturating_sub(now_ns(host));
    advance(host, ahead_ns);
}
