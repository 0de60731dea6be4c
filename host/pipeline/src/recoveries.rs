//! What has ended faults of a GPU lately: kept so that nothing from before it comes up again (design N7).
//!
//! A recovery is noticed by looking: a reset that this look shows happened after the last one that showed the
//! GPU as it was (`looks.rs`). A fault that was last seen up to that look is from before it. One that came in
//! between can't be ordered, and stands: bad news is not taken away on a guess.
//!
//! What is from before may come up after it: it was with the policies, was failed on and is asked again, or
//! stands in the journal that a new version judges. So what ended is kept beside the journal; like the journal, for
//! this run.

use std::collections::HashMap;
use std::sync::Arc;

use device_api_core::condition;
use device_api_core::ids::{IncidentId, SignalSeq};
use device_api_core::limits;
use device_api_core::recovery;
use device_api_core::verdict::{Clear, ClearOn};

use crate::looks::Looks;

/// An event, and up to where what names it is over.
#[derive(Clone, Copy, Debug)]
struct Ended {
    event: ClearOn,
    through: SignalSeq,
}

#[derive(Debug)]
pub(crate) struct Recoveries {
    pub(crate) looks: Looks,
    /// One for each event that there was: of two the later ends more.
    ended: Vec<Ended>,
    /// When what an operator cleared had been seen last, by condition. As many as policies own types, on
    /// the GPU and on each MIG instance that it has.
    by_hand: HashMap<Arc<str>, SignalSeq>,
    /// The same of what was assumed, by incident: the newest last.
    assumed_by_hand: Vec<(IncidentId, SignalSeq)>,
}

impl Recoveries {
    /// `start`: the newest signal of the runs before. What is noticed in this run came after them.
    pub(crate) fn new(start: SignalSeq) -> Self {
        Self {
            looks: Looks::new(start),
            ended: Vec::new(),
            by_hand: HashMap::new(),
            assumed_by_hand: Vec::new(),
        }
    }

    /// Something has happened since the last look. Says up to where what names it is over.
    pub(crate) fn note(&mut self, event: ClearOn) -> SignalSeq {
        let through = self.looks.before(event);
        match self.ended.iter_mut().find(|known| known.event == event) {
            Some(known) => known.through = known.through.max(through),
            None => self.ended.push(Ended { event, through }),
        }
        through
    }

    /// An operator has cleared a condition, of which a signal had told last.
    pub(crate) fn note_by_hand(&mut self, condition: &Arc<str>, last: SignalSeq) {
        self.by_hand.insert(condition.clone(), last);
    }

    /// An operator has cleared what was assumed of an incident, of which a signal had told last.
    pub(crate) fn note_assumed_by_hand(&mut self, incident: IncidentId, last: SignalSeq) {
        let known = &mut self.assumed_by_hand;
        known.retain(|(id, _)| *id != incident);
        if known.len() >= limits::FALLBACKS_PER_GPU_MAX {
            known.remove(0);
        }
        known.push((incident, last));
    }

    /// MIG instances are gone, and so are their conditions.
    pub(crate) fn leave_instances(&mut self, is_gone: impl Fn(&str) -> bool) {
        let is_its = |name: &str| condition::instance_in(name).is_some_and(&is_gone);
        self.by_hand.retain(|name, _| !is_its(name));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.by_hand.is_empty() && self.assumed_by_hand.is_empty()
    }

    /// Whether an operator has cleared what is assumed of an incident since it was last seen.
    pub(crate) fn assumption_cleared_by_hand(&self, incident: IncidentId, last: SignalSeq) -> bool {
        let mut known = self.assumed_by_hand.iter();
        known.any(|(id, cleared)| *id == incident && last <= *cleared)
    }

    /// Whether what was last seen then, and names these ways out, is over.
    pub(crate) fn ended(&self, clears: &[Clear], last: SignalSeq) -> bool {
        let is_over = |ended: &Ended| last <= ended.through && recovery::ends(ended.event, clears);
        self.ended.iter().any(is_over)
    }

    /// Whether an operator has cleared it since it was last seen.
    pub(crate) fn cleared_by_hand(&self, condition: &str, last: SignalSeq) -> bool {
        self.by_hand
            .get(condition)
            .is_some_and(|cleared| last <= *cleared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n9_what_was_cleared_of_an_instance_goes_with_it() {
        let mut recoveries = Recoveries::new(SignalSeq(3));
        for round in 0..100 {
            let name = format!("X@MIG-{round}");
            recoveries.note_by_hand(&name.as_str().into(), SignalSeq(4));
            recoveries.leave_instances(|instance| name.ends_with(instance));
        }
        recoveries.note_by_hand(&"X".into(), SignalSeq(4));
        recoveries.leave_instances(|_| true);
        assert_eq!(recoveries.by_hand.len(), 1);
        assert!(recoveries.cleared_by_hand("X", SignalSeq(4)));
    }

    #[test]
    fn n7_what_came_after_the_last_look_is_not_over() {
        let mut recoveries = Recoveries::new(SignalSeq(3));
        let reset = [Clear::on(ClearOn::GpuReset)];
        assert!(!recoveries.ended(&reset, SignalSeq(1)), "nothing happened");
        recoveries.looks.told(SignalSeq(5));
        assert_eq!(recoveries.note(ClearOn::GpuReset), SignalSeq(5));
        assert!(recoveries.ended(&reset, SignalSeq(5)));
        assert!(!recoveries.ended(&reset, SignalSeq(6)));
        assert!(!recoveries.ended(&[Clear::on(ClearOn::DriverRebind)], SignalSeq(5)));
        recoveries.looks.told(SignalSeq(9));
        assert!(
            !recoveries.ended(&reset, SignalSeq(6)),
            "a later look does not make the reset later"
        );
    }
}
