//! Health: derived from the conditions, never set (design section 1).

use std::fmt;
use std::sync::Arc;

use crate::action::Action;
use crate::condition::{self, Condition, Status};
use crate::verdict::{Judgement, Severity};

/// What a consumer asks first. `Unknown` is the start state: neither healthy nor unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    Healthy,
    Degraded,
    Unhealthy,
    #[default]
    Unknown,
}

impl Health {
    pub const ALL: [Self; 4] = [
        Self::Healthy,
        Self::Degraded,
        Self::Unhealthy,
        Self::Unknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Unhealthy => "Unhealthy",
            Self::Unknown => "Unknown",
        }
    }

    /// The status of the condition `Ready`.
    pub fn ready(self) -> Status {
        match self {
            Self::Healthy | Self::Degraded => Status::True,
            Self::Unhealthy => Status::False,
            Self::Unknown => Status::Unknown,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Health, and what made it so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    pub health: Health,
    /// Type of the condition that decides; `None` where nothing stands out.
    pub health_from: Option<Arc<str>>,
    pub action: Action,
    /// Type of the condition that recommends the action.
    pub action_from: Option<Arc<str>>,
}

/// Derives health: a fatal problem is Unhealthy; else a condition that is unknown makes Unknown;
/// else a warning makes Degraded; else one that is ok, or a problem of severity info, makes
/// Healthy. No condition at all is Unknown.
///
/// Of a GPU that is not in the machine any more nothing is known, and nothing is to be done about it: what stood
/// against it is no reason to drain the machine that it has left. `conditions` stand in their order.
pub fn derive(conditions: &[Condition]) -> Derived {
    if condition::is_gone(conditions) {
        return Derived {
            health: Health::Unknown,
            health_from: Some(condition::GONE.into()),
            ..Derived::default()
        };
    }
    // A provider's own `Ready` is a vote like any other (design P3).
    let counted = || conditions.iter().filter(|c| c.counted);
    let problem = |severity| counted().find(move |c| c.is_problem() && c.severity == severity);
    let unknown = || counted().find(|c| c.state == Judgement::Unknown);

    let (health, decider) = if let Some(fatal) = problem(Severity::Fatal) {
        (Health::Unhealthy, Some(fatal))
    } else if let Some(unknown) = unknown() {
        (Health::Unknown, Some(unknown))
    } else if let Some(warning) = problem(Severity::Warning) {
        (Health::Degraded, Some(warning))
    } else if counted().next().is_some() {
        (Health::Healthy, None)
    } else {
        (Health::Unknown, None)
    };
    let advice = counted()
        .filter(|c| c.is_problem() && c.action > Action::None)
        .reduce(|best, next| {
            if next.action > best.action {
                next
            } else {
                best
            }
        });
    Derived {
        health,
        health_from: decider.map(|c| c.type_.clone()),
        action: advice.map_or(Action::None, |c| c.action),
        action_from: advice.map(|c| c.type_.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::tests::condition;

    #[track_caller]
    fn check(conditions: &[(Judgement, Severity)], expected: Health) {
        let conditions: Vec<_> = conditions
            .iter()
            .enumerate()
            .map(|(at, (state, severity))| condition(&format!("T{at}"), *state, *severity))
            .collect();
        assert_eq!(derive(&conditions).health, expected);
    }

    #[test]
    fn health_follows_the_worst_that_is_known() {
        use Judgement::{Ok, Problem, Unknown};
        use Severity::{Fatal, Info, Warning};
        check(&[], Health::Unknown);
        check(&[(Ok, Fatal)], Health::Healthy);
        check(&[(Problem, Info)], Health::Healthy);
        check(&[(Ok, Info), (Problem, Warning)], Health::Degraded);
        check(&[(Unknown, Info), (Problem, Warning)], Health::Unknown);
        check(
            &[(Unknown, Info), (Problem, Fatal), (Ok, Info)],
            Health::Unhealthy,
        );
    }

    #[test]
    fn the_action_is_the_greatest_of_the_standing_problems() {
        let mut reset = condition("A", Judgement::Problem, Severity::Fatal);
        reset.action = Action::ComponentReset;
        let mut support = condition("B", Judgement::Problem, Severity::Warning);
        support.action = Action::ContactSupport;
        let mut past = condition("C", Judgement::Ok, Severity::Fatal);
        past.action = Action::ReplaceVm;
        let derived = derive(&[reset, support, past]);
        assert_eq!(
            (derived.health, derived.health_from.as_deref()),
            (Health::Unhealthy, Some("A"))
        );
        assert_eq!(
            (derived.action, derived.action_from.as_deref()),
            (Action::ContactSupport, Some("B"))
        );
    }

    #[test]
    fn n7_of_a_gpu_that_is_gone_nothing_is_known_and_nothing_to_be_done() {
        let mut reset = condition("A", Judgement::Problem, Severity::Fatal);
        reset.action = Action::ComponentReset;
        let gone = |state| condition(condition::GONE, state, Severity::Warning);
        let derived = derive(&[reset.clone(), gone(Judgement::Unknown)]);
        assert_eq!(
            (derived.health, derived.health_from.as_deref()),
            (Health::Unknown, Some(condition::GONE))
        );
        assert_eq!((derived.action, derived.action_from), (Action::None, None));
        let derived = derive(&[reset, gone(Judgement::Ok)]);
        assert_eq!(derived.health, Health::Unhealthy, "it is back");
        assert_eq!(derived.action, Action::ComponentReset);
    }

    #[test]
    fn what_is_not_counted_decides_nothing() {
        let mut drill = condition("A", Judgement::Problem, Severity::Fatal);
        drill.counted = false;
        assert_eq!(
            derive(&[drill, condition("B", Judgement::Ok, Severity::Info)]).health,
            Health::Healthy
        );
    }

    #[test]
    fn ready_says_what_the_design_says() {
        let ready: Vec<_> = Health::ALL.iter().map(|health| health.ready()).collect();
        assert_eq!(
            ready,
            [Status::True, Status::True, Status::False, Status::Unknown]
        );
    }
}
