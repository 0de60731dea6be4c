//! Which of the loaded policies make up the set: names and condition types have one owner each.

use std::sync::Arc;

use device_api_core::limits::POLICIES_MAX;
use device_api_core::policy::PolicyInfo;
use device_api_core::ports::Policy;

use crate::error::PolicyError;
use crate::runner::LoadedPolicy;

/// The set, and why others are not in it.
#[derive(Debug, Default)]
pub struct Merged {
    /// The bundled ones (or their replacements) in their order, then the others in theirs.
    pub policies: Vec<Arc<LoadedPolicy>>,
    pub errors: Vec<PolicyError>,
}

/// Puts the policies of a directory beside the bundled ones (design H14).
///
/// One of the same name as a bundled one replaces it. A name, or a condition type, that is taken is
/// refused to the later one, naming both; a bundled policy whose replacement is refused stays.
#[must_use]
pub fn merge(bundled: Vec<Arc<LoadedPolicy>>, from_directory: Vec<Arc<LoadedPolicy>>) -> Merged {
    let (policies, errors) = seat_all(bundled, from_directory);
    Merged { policies, errors }
}

/// What the rules look at.
trait Member {
    fn info(&self) -> &PolicyInfo;
    fn origin(&self) -> &str;
}

impl Member for Arc<LoadedPolicy> {
    fn info(&self) -> &PolicyInfo {
        Policy::info(&**self)
    }

    fn origin(&self) -> &str {
        LoadedPolicy::origin(self)
    }
}

struct Seat<M> {
    member: M,
    is_bundled: bool,
}

fn seat_all<M: Member>(bundled: Vec<M>, from_directory: Vec<M>) -> (Vec<M>, Vec<PolicyError>) {
    let mut seats: Vec<Seat<M>> = Vec::new();
    let replaces = |member: &M| {
        bundled
            .iter()
            .any(|own| own.info().id.name == member.info().id.name)
    };
    // Replacements first: what they give up is free for the others, whatever the files are called.
    let (replacements, others): (Vec<M>, Vec<M>) = from_directory.into_iter().partition(replaces);
    let later = replacements.into_iter().chain(others).map(|member| Seat {
        member,
        is_bundled: false,
    });
    let mut errors = Vec::new();
    for newcomer in bundled
        .into_iter()
        .map(|member| Seat {
            member,
            is_bundled: true,
        })
        .chain(later)
    {
        errors.extend(seat(&mut seats, newcomer).err());
    }
    (seats.into_iter().map(|seat| seat.member).collect(), errors)
}

fn seat<M: Member>(seats: &mut Vec<Seat<M>>, newcomer: Seat<M>) -> Result<(), PolicyError> {
    let (info, origin) = (newcomer.member.info(), newcomer.member.origin().to_owned());
    let namesake = seats
        .iter()
        .position(|other| other.member.info().id.name == info.id.name);
    for (at, other) in seats.iter().enumerate() {
        let gives_way = other.is_bundled && !newcomer.is_bundled;
        let other = &other.member;
        if namesake != Some(at) {
            if let Some(condition) = shared_type(info, other.info()) {
                return Err(PolicyError::DuplicateType {
                    origin,
                    condition,
                    other: other.origin().to_owned(),
                });
            }
        } else if !gives_way {
            let name = info.id.name.to_string();
            return Err(PolicyError::DuplicateName {
                origin,
                name,
                other: other.origin().to_owned(),
            });
        }
    }
    if let Some(at) = namesake {
        seats.splice(at..=at, [newcomer]);
    } else if seats.len() < POLICIES_MAX {
        seats.push(newcomer);
    } else {
        return Err(PolicyError::TooMany {
            origin,
            max: POLICIES_MAX,
        });
    }
    Ok(())
}

fn shared_type(a: &PolicyInfo, b: &PolicyInfo) -> Option<String> {
    a.owns
        .iter()
        .find(|owned| b.owned(&owned.condition).is_some())
        .map(|owned| owned.condition.clone())
}

#[cfg(test)]
mod tests {
    use device_api_core::policy::{OwnedType, PolicyId};

    use super::*;

    struct Fake {
        info: PolicyInfo,
        origin: String,
    }

    impl Member for Fake {
        fn info(&self) -> &PolicyInfo {
            &self.info
        }

        fn origin(&self) -> &str {
            &self.origin
        }
    }

    fn member(origin: &str, name: &str, types: &[&str]) -> Fake {
        let id = PolicyId {
            name: name.into(),
            version: "1".into(),
            digest: "0".into(),
        };
        let owns = types.iter().map(|condition| OwnedType {
            condition: (*condition).to_owned(),
            true_is_problem: true,
            reasons: vec!["Why".to_owned()],
        });
        let (subscriptions, readings) = (Vec::new(), Vec::new());
        let info = PolicyInfo {
            id,
            state_schema: 1,
            subscriptions,
            owns: owns.collect(),
            readings,
        };
        Fake {
            info,
            origin: origin.to_owned(),
        }
    }

    #[track_caller]
    fn check(directory: Vec<Fake>, seated: &[&str], refused: &[&str]) {
        let bundled = vec![
            member("bundled/a", "a", &["A1", "A2"]),
            member("bundled/b", "b", &["B"]),
        ];
        let (members, errors) = seat_all(bundled, directory);
        assert_eq!(
            members.iter().map(Member::origin).collect::<Vec<_>>(),
            seated
        );
        let errors: Vec<String> = errors.iter().map(PolicyError::chain).collect();
        assert_eq!(errors.len(), refused.len(), "{errors:?}");
        for (error, word) in errors.iter().zip(refused) {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn h14_a_namesake_replaces_the_bundled_one_in_its_place() {
        check(vec![], &["bundled/a", "bundled/b"], &[]);
        let directory = vec![
            member("c.wasm", "c", &["C"]),
            member("x.wasm", "a", &["A1"]),
        ];
        check(directory, &["x.wasm", "bundled/b", "c.wasm"], &[]);
    }

    #[test]
    fn what_a_replacement_gives_up_is_free() {
        let directory = vec![
            member("c.wasm", "c", &["A2"]),
            member("x.wasm", "a", &["A1"]),
        ];
        check(directory, &["x.wasm", "bundled/b", "c.wasm"], &[]);
    }

    #[test]
    fn names_and_types_that_are_taken_are_refused_to_the_later_naming_both() {
        let directory = vec![
            member("x.wasm", "a", &["A1"]),
            member("y.wasm", "a", &["A1"]),
        ];
        let error = r#"y.wasm is named "a", and so is x.wasm"#;
        check(directory, &["x.wasm", "bundled/b"], &[error]);

        let directory = vec![
            member("c.wasm", "c", &["C"]),
            member("d.wasm", "d", &["D", "C"]),
        ];
        let error = r#"d.wasm owns the condition type "C", and so does c.wasm"#;
        check(directory, &["bundled/a", "bundled/b", "c.wasm"], &[error]);
    }

    #[test]
    fn a_bundled_policy_whose_replacement_is_refused_stays() {
        let directory = vec![member("x.wasm", "a", &["B"])];
        check(
            directory,
            &["bundled/a", "bundled/b"],
            &["x.wasm owns the condition type \"B\", and so does bundled/b"],
        );
    }

    #[test]
    fn the_set_is_bounded() {
        let many =
            (0..=POLICIES_MAX).map(|at| member(&format!("{at}.wasm"), &format!("p{at}"), &[]));
        let (members, errors) = seat_all(Vec::new(), many.collect());
        assert_eq!((members.len(), errors.len()), (POLICIES_MAX, 1));
        assert!(
            errors[0]
                .chain()
                .contains("policy 16.wasm is not loaded: there are 16 others")
        );
    }
}
