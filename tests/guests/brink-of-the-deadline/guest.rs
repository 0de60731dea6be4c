//! Uses up nearly all of its deadline, always, and learns from its own state where that is: it works half
//! as much again as the last call that came through did, and one that is cut off leaves the state as it
//! was. By the number of the signal a little less, or nothing more, so that it hovers there.
//!
//! Must come of it: its own condition, or `deadline`, and nothing else.

use std::hint::black_box;

use device_policy_sdk::types::Decision;
use device_policy_sdk::{HostExt as _, Info};

use crate::{Call, Hostile, Me};

/// Rounds of arithmetic that a first call does: about a millisecond.
const FIRST: u64 = 500_000;

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.eager())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let known = call.host.get_parsed("rounds").unwrap_or(FIRST);
        let seq = call.signals.last().map_or(0, |signal| signal.seq);
        // In hundredths.
        let share = [150, 99, 101]
            .get(usize::try_from(seq % 3).unwrap_or(0))
            .copied()
            .unwrap_or(100);
        let rounds = known * share / 100;
        let mut x = seq | 1;
        for _ in 0..rounds {
            x ^= x << 13;
            x = black_box(x ^ (x >> 7));
        }
        call.host.put_display("rounds", rounds)?;
        Ok(call.each(Me::problem))
    }
}
