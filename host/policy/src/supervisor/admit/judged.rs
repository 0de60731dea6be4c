//! What a version says of one device, batch by batch, as one decision.

use device_api_core::ids::SignalSeq;
use device_api_core::verdict::{Decision, Judgement};

use crate::judge::View;

/// What it says of one device.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) view: View,
    /// Of all batches.
    pub(super) decision: Decision,
    /// Wakes that drills alone have set off.
    pub(super) drill_wakes: Vec<String>,
}

impl Judged {
    /// One decision of many: of two verdicts on a condition, and of two wakes of a name, the later. But
    /// what a drill says takes the place of no problem that is real (design N8).
    pub(super) fn absorb(
        &mut self,
        next: Decision,
        is_drill: bool,
        is_real: impl Fn(SignalSeq) -> bool,
    ) {
        let whole = &mut self.decision;
        for verdict in next.verdicts {
            let mut said = whole.verdicts.iter();
            let old = said.find(|old| old.condition == verdict.condition);
            if !is_real(verdict.cause)
                && old.is_some_and(|old| old.state == Judgement::Problem && is_real(old.cause))
            {
                continue;
            }
            whole
                .verdicts
                .retain(|old| old.condition != verdict.condition);
            whole.verdicts.push(verdict);
        }
        for wake in next.wakes {
            whole.wakes.retain(|old| old.name != wake.name);
            self.drill_wakes.retain(|old| *old != wake.name);
            if is_drill {
                self.drill_wakes.push(wake.name.clone());
            }
            whole.wakes.push(wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use device_api_core::verdict::Wake;

    use super::*;

    #[test]
    fn n8_a_wake_is_a_drills_where_the_batch_that_set_it_last_was() {
        let mut judged = Judged::default();
        let mut wakes = |name: &str, is_drill| {
            let next = Decision {
                wakes: vec![Wake {
                    name: name.to_owned(),
                    after: Duration::from_secs(1),
                }],
                ..Decision::default()
            };
            judged.absorb(next, is_drill, |_| true);
            judged.drill_wakes.clone()
        };
        assert!(wakes("real", false).is_empty());
        assert_eq!(wakes("injected", true), ["injected"]);
        assert_eq!(wakes("real", false), ["injected"]);
        assert!(wakes("injected", false).is_empty());
    }
}
