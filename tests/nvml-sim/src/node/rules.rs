//! Calls that were made to misbehave.

/// More than a test sets at a time; stops a script that only adds.
pub(crate) const RULES_MAX: usize = 256;

/// How a call misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Slow {
        ms: u64,
    },
    Hang,
    /// `left` times more; always if not said.
    Fail {
        code: u32,
        left: Option<u32>,
    },
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

#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Adds a rule in the place of one that it differs from by a figure only.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add(&mut self, rule: Rule) -> Result<(), String> {
        let kind = std::mem::discriminant(&rule.effect);
        let same = |old: &Rule| {
            old.gpu == rule.gpu
                && old.call == rule.call
                && std::mem::discriminant(&old.effect) == kind
        };
        self.0.retain(|old| !same(old));
        if self.0.len() == RULES_MAX {
            return Err(format!("{RULES_MAX} calls misbehave already: use reset"));
        }
        self.0.push(rule);
        Ok(())
    }

    /// Ends the rules that `ends` picks; how many there were.
    pub(crate) fn end(&mut self, ends: impl Fn(&Rule) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|rule| !ends(rule));
        before - self.0.len()
    }

    fn effects(&self, call: &str, gpu: Option<u32>) -> impl Iterator<Item = Effect> {
        let hit = move |rule: &&Rule| rule.hits(call, gpu);
        self.0.iter().filter(hit).map(|rule| rule.effect)
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

    /// The code the call is made to answer, this once.
    pub(crate) fn failure(&mut self, call: &str, gpu: Option<u32>) -> Option<u32> {
        let position = self
            .0
            .iter()
            .position(|rule| rule.hits(call, gpu) && matches!(rule.effect, Effect::Fail { .. }))?;
        let rule = self.0.get_mut(position)?;
        let Effect::Fail { code, left } = &mut rule.effect else {
            return None;
        };
        let code = *code;
        if let Some(left) = left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.0.remove(position);
            }
        }
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(gpu: Option<u32>, call: Option<&str>, effect: Effect) -> Rule {
        let call = call.map(str::to_owned);
        Rule { gpu, call, effect }
    }

    #[test]
    fn a_rule_hits_what_it_names_and_no_more() {
        let mut rules = Rules::default();
        let fail = Effect::Fail {
            code: 999,
            left: None,
        };
        for (gpu, call, effect) in [
            (Some(1), Some("a"), Effect::Hang),
            (None, Some("b"), Effect::Slow { ms: 5 }),
            (Some(0), None, fail),
        ] {
            rules.add(rule(gpu, call, effect)).unwrap();
        }
        assert!(rules.hangs("a", Some(1)) && !rules.hangs("a", Some(0)) && !rules.hangs("a", None));
        assert_eq!(
            (rules.delay_ms("b", None), rules.delay_ms("a", Some(1))),
            (5, 0)
        );
        assert_eq!(
            (rules.failure("z", Some(0)), rules.failure("z", Some(1))),
            (Some(999), None)
        );
    }

    #[test]
    fn a_failure_ends_after_its_times() {
        let mut rules = Rules::default();
        rules
            .add(rule(
                None,
                None,
                Effect::Fail {
                    code: 10,
                    left: Some(2),
                },
            ))
            .unwrap();
        let codes = [(); 3].map(|()| rules.failure("a", None));
        assert_eq!(codes, [Some(10), Some(10), None]);
        assert_eq!(rules.iter().count(), 0);
    }

    #[test]
    fn rules_are_bounded_and_replaced() {
        let mut rules = Rules::default();
        for ms in [1, 2] {
            rules.add(rule(None, None, Effect::Slow { ms })).unwrap();
        }
        assert_eq!((rules.iter().count(), rules.delay_ms("a", None)), (1, 2));
        for gpu in 1.. {
            if let Err(refusal) = rules.add(rule(Some(gpu), None, Effect::Hang)) {
                assert!(refusal.contains("256"), "{refusal}");
                break;
            }
        }
        assert_eq!(rules.end(|rule| rule.effect == Effect::Hang), RULES_MAX - 1);
    }
}
