//! A guest that thinks for some milliseconds about each XID: it holds the window open between a
//! fault and its decision, in which no reader may be answered (design C2).

use std::hint::black_box;

use device_policy_sdk::types::{Decision, Device, Severity, Signal};
use device_policy_sdk::verdict::problem;
use device_policy_sdk::{Host, Info, Policy, action, clear, info, kind, subscribe};

/// Rounds of arithmetic: about 5 ms, below the call deadline that the tests give it.
const ROUNDS: u64 = 4_000_000;

/// The slow policy.
#[derive(Clone, Copy, Debug)]
pub struct Slow;

impl Policy for Slow {
    fn configure(_config: &str) -> Result<(Self, Info), String> {
        let info = info("slow", env!("CARGO_PKG_VERSION"))
            .owns("SlowFault", true, &["Thought"])
            .subscribe(subscribe::all(kind::XID));
        Ok((Self, info))
    }

    fn evaluate(
        &self,
        _: &mut dyn Host,
        _: &Device,
        signals: &[Signal],
    ) -> Result<Decision, String> {
        let mut decision = Decision::default();
        for signal in signals {
            think(signal.seq);
            let verdict = problem("SlowFault", Severity::Fatal, "Thought", signal)
                .message("thought about it for a while")
                .action(action::RESTART_BM)
                .clears(&[clear::OPERATOR]);
            decision.verdicts.push(verdict.into());
        }
        Ok(decision)
    }
}

fn think(seed: u64) {
    let mut x = seed | 1;
    for _ in 0..ROUNDS {
        x ^= x << 13;
        x ^= x >> 7;
        x = black_box(x ^ (x << 17));
    }
}

device_policy_sdk::export!(Slow);
