//! Sets 32 timers at each signal, each as short as can be and by another name, and again when one comes.
//!
//! Must come of it: its own condition, or `invalid` where it has too many; timers a second at most.

use device_policy_sdk::types::{Decision, Wake};
use device_policy_sdk::{Info, info, kind, subscribe};

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        let info = info(&me.name, "1.0.0").owns(&me.condition, true, &["Hostile", "Fine"]);
        Ok(info
            .subscribe(subscribe::all(kind::XID))
            .subscribe(subscribe::all(kind::TIMER)))
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let mut decision = call.each(Me::problem);
        let seq = call.signals.last().map_or(0, |signal| signal.seq);
        decision.wakes = (0..32)
            .map(|at| Wake {
                name: format!("{seq}-{at}"),
                after_ms: 1,
            })
            .collect();
        Ok(decision)
    }
}
