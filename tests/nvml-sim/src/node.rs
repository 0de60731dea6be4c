//! The simulated node: its GPUs, its driver, and the calls that were made to misbehave.

use crate::events::Events;
use crate::profile::{Identity, Profile};

/// More than a test sets at a time; stops a script that only adds.
pub(crate) const RULES_MAX: usize = 256;
/// Cool enough for an idle GPU of any profile; those further down the air stream are warmer.
const INLET_C: u32 = 31;

/// Index into the ECC counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EccSpan {
    Volatile,
    Aggregate,
}

/// Errors of one memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EccCount {
    pub(crate) corrected: u64,
    pub(crate) uncorrected: u64,
}

/// Errors by memory, since driver load or since manufacture.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EccCounts {
    pub(crate) dram: EccCount,
    pub(crate) sram: EccCount,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowRemap {
    pub(crate) correctable: u32,
    pub(crate) uncorrectable: u32,
    pub(crate) pending: bool,
    pub(crate) failure: bool,
}

/// One GPU and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) identity: Identity,
    pub(crate) temperature_c: u32,
    pub(crate) power_mw: u32,
    pub(crate) ecc_volatile: EccCounts,
    pub(crate) ecc_aggregate: EccCounts,
    pub(crate) rows: RowRemap,
    /// Clock event reasons besides "idle", as NVML's bits.
    pub(crate) throttle: u64,
    pub(crate) lost: bool,
    /// Field 230.
    pub(crate) recovery_action: u32,
}

impl Gpu {
    pub(crate) fn healthy(profile: &Profile, identity: Identity) -> Self {
        let index = identity.index;
        Self {
            temperature_c: INLET_C + (index * 5) % 13,
            power_mw: profile.power_idle_w * 1000 + (index * 937) % 4000,
            identity,
            ecc_volatile: EccCounts::default(),
            ecc_aggregate: EccCounts::default(),
            rows: RowRemap::default(),
            throttle: 0,
            lost: false,
            recovery_action: 0,
        }
    }

    pub(crate) fn ecc(&self, span: EccSpan) -> &EccCounts {
        match span {
            EccSpan::Volatile => &self.ecc_volatile,
            EccSpan::Aggregate => &self.ecc_aggregate,
        }
    }
}

/// How a call misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Slow { ms: u64 },
    Hang,
    Fail { code: u32 },
}

/// Which calls misbehave, and how. Nothing named means any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) gpu: Option<u32>,
    pub(crate) call: Option<String>,
    pub(crate) effect: Effect,
}

impl Rule {
    fn hits(&self, call: &str, gpu: Option<u32>) -> bool {
        self.call.as_deref().is_none_or(|named| named == call)
            && (self.gpu.is_none() || self.gpu == gpu)
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) profile: &'static Profile,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) events: Events,
    /// Whether the kernel driver is bound.
    pub(crate) loaded: bool,
    /// `nvmlInit` calls not yet answered by an `nvmlShutdown`.
    pub(crate) users: u32,
}

impl Node {
    pub(crate) fn healthy(profile: &'static Profile, gpus: u32) -> Self {
        let identities = profile.gpus(gpus).into_iter();
        Self {
            profile,
            gpus: identities
                .map(|identity| Gpu::healthy(profile, identity))
                .collect(),
            rules: Vec::new(),
            events: Events::new(),
            loaded: true,
            users: 0,
        }
    }

    pub(crate) fn gpu(&self, index: u32) -> Option<&Gpu> {
        self.gpus.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn gpu_mut(&mut self, index: u32) -> Option<&mut Gpu> {
        self.gpus.get_mut(usize::try_from(index).ok()?)
    }

    pub(crate) fn initialised(&self) -> bool {
        self.loaded && self.users > 0
    }

    /// The last user went, or the driver did: event sets don't survive either.
    pub(crate) fn end_session(&mut self) {
        self.users = 0;
        self.events.free_all();
    }

    /// Makes the GPU (or all, rules for any GPU included) as new.
    pub(crate) fn reset(&mut self, gpu: Option<u32>) {
        let profile = self.profile;
        for healed in self
            .gpus
            .iter_mut()
            .filter(|g| gpu.is_none_or(|it| it == g.identity.index))
        {
            *healed = Gpu::healthy(profile, healed.identity.clone());
        }
        self.rules.retain(|rule| gpu.is_some() && rule.gpu != gpu);
    }

    fn effects(&self, call: &str, gpu: Option<u32>) -> impl Iterator<Item = Effect> {
        self.rules
            .iter()
            .filter(move |rule| rule.hits(call, gpu))
            .map(|rule| rule.effect)
    }

    /// How long the call takes longer.
    pub(crate) fn delay_ms(&self, call: &str, gpu: Option<u32>) -> u64 {
        let delay = |effect| match effect {
            Effect::Slow { ms } => ms,
            Effect::Hang | Effect::Fail { .. } => 0,
        };
        self.effects(call, gpu).map(delay).sum()
    }

    pub(crate) fn hangs(&self, call: &str, gpu: Option<u32>) -> bool {
        self.effects(call, gpu).any(|effect| effect == Effect::Hang)
    }

    /// The code the call is made to answer.
    pub(crate) fn failure(&self, call: &str, gpu: Option<u32>) -> Option<u32> {
        self.effects(call, gpu).find_map(|effect| match effect {
            Effect::Fail { code } => Some(code),
            Effect::Slow { .. } | Effect::Hang => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(gpu: Option<u32>, call: Option<&str>, effect: Effect) -> Rule {
        Rule {
            gpu,
            call: call.map(str::to_owned),
            effect,
        }
    }

    #[test]
    fn a_rule_hits_what_it_names_and_no_more() {
        let mut node = Node::healthy(Profile::standard(), 2);
        node.rules.push(rule(Some(1), Some("a"), Effect::Hang));
        node.rules
            .push(rule(None, Some("b"), Effect::Slow { ms: 5 }));
        node.rules
            .push(rule(Some(0), None, Effect::Fail { code: 999 }));
        assert!(node.hangs("a", Some(1)) && !node.hangs("a", Some(0)) && !node.hangs("a", None));
        assert_eq!(
            (node.delay_ms("b", None), node.delay_ms("a", Some(1))),
            (5, 0)
        );
        assert_eq!(
            (node.failure("z", Some(0)), node.failure("z", Some(1))),
            (Some(999), None)
        );
    }

    #[test]
    fn a_reset_of_one_gpu_leaves_the_others_broken() {
        let mut node = Node::healthy(Profile::standard(), 2);
        for gpu in &mut node.gpus {
            gpu.lost = true;
        }
        node.rules.push(rule(Some(0), None, Effect::Hang));
        node.rules.push(rule(None, None, Effect::Hang));
        node.reset(Some(0));
        assert_eq!(
            node.gpus.iter().map(|gpu| gpu.lost).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(node.rules.len(), 1);
        node.reset(None);
        assert!(node.rules.is_empty() && node.gpus.iter().all(|gpu| !gpu.lost));
    }
}
