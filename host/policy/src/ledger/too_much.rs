//! Components that took the compiler all the time or memory that it may use, over restarts: one of them
//! costs minutes, which others wait for (design H10).

use std::time::Duration;

use device_api_core::clock::WallTime;
use device_api_wasm::{CompilerSettings, LoadError};
use serde::{Deserialize, Serialize};

use super::Ledger;

/// Digests remembered; the oldest go first.
pub(crate) const TOO_MUCH_MAX: usize = 64;

/// By how much of it memory must be more to be worth another try, one part in so many: what a container has
/// left differs a little at each start.
const MORE_MEMORY_PART: u64 = 8;

/// Exactly one of the bounds is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TooMuch {
    /// Which compiler: another may do better.
    compiler: String,
    since_ms: u64,
    #[serde(default)]
    deadline: Option<Deadline>,
    #[serde(default)]
    memory_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Deadline {
    ms: u64,
    cpu_ms: u64,
}

impl TooMuch {
    fn of(compiler: &str, error: &LoadError, now: WallTime) -> Option<Self> {
        if !error.is_too_much_to_compile() {
            return None;
        }
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "no other is a bound on the compiler"
        )]
        let (deadline, memory_bytes) = match error {
            LoadError::CompileDeadline { limit, cpu } => {
                let (ms, cpu_ms) = (millis(*limit), millis(*cpu));
                (Some(Deadline { ms, cpu_ms }), None)
            }
            LoadError::CompileMemory { limit_bytes } => (None, Some(*limit_bytes)),
            _ => return None,
        };
        Some(Self {
            compiler: compiler.to_owned(),
            since_ms: now.unix_ms(),
            deadline,
            memory_bytes,
        })
    }

    /// What it ran into; `None`: there is more of it now.
    fn error(&self, settings: &CompilerSettings) -> Option<LoadError> {
        if let Some(Deadline { ms, cpu_ms }) = self.deadline {
            let limit = Duration::from_millis(ms);
            let cpu = Duration::from_millis(cpu_ms);
            return (settings.deadline <= limit)
                .then_some(LoadError::CompileDeadline { limit, cpu });
        }
        let limit_bytes = self.memory_bytes?;
        let is_more = settings.memory_bytes_max > limit_bytes + limit_bytes / MORE_MEMORY_PART;
        (!is_more).then_some(LoadError::CompileMemory { limit_bytes })
    }
}

impl Ledger {
    /// What need not be tried by that compiler, and why.
    pub(crate) fn too_much<'a>(
        &'a self,
        compiler: &'a str,
        settings: &'a CompilerSettings,
    ) -> impl Iterator<Item = (&'a str, LoadError)> + 'a {
        let all = self.too_much.iter();
        let of_it = all.filter(move |(_, it)| it.compiler == compiler);
        of_it.filter_map(|(digest, it)| Some((digest.as_str(), it.error(settings)?)))
    }

    /// Remembers it where it would be the same again.
    pub(crate) fn could_not_be_compiled(
        &mut self,
        digest: &str,
        compiler: &str,
        error: &LoadError,
        now: WallTime,
    ) {
        let Some(too_much) = TooMuch::of(compiler, error, now) else {
            return;
        };
        self.too_much.insert(digest.to_owned(), too_much);
        while self.too_much.len() > TOO_MUCH_MAX {
            let oldest = self.too_much.iter().min_by_key(|(_, it)| it.since_ms);
            let Some(oldest) = oldest.map(|(digest, _)| digest.clone()) else {
                return;
            };
            self.too_much.remove(&oldest);
        }
    }

    pub(crate) fn can_be_compiled(&mut self, digest: &str) {
        self.too_much.remove(digest);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_api_wasm::Worker;

    fn settings(deadline: Duration, memory_bytes_max: u64) -> CompilerSettings {
        CompilerSettings {
            worker: Worker {
                program: "/nowhere".into(),
                args: Vec::new(),
            },
            cache_dir: None,
            memory_bytes_max,
            deadline,
        }
    }

    #[test]
    fn h10_what_was_too_much_is_remembered_until_there_is_more_or_another_compiler() {
        let (limit, cpu) = (Duration::from_secs(2), Duration::from_millis(1900));
        let starved = Duration::from_millis(900);
        let now = WallTime::from_ms(1);
        let mut ledger = Ledger::default();
        let late = LoadError::CompileDeadline { limit, cpu };
        let large = LoadError::CompileMemory { limit_bytes: 800 };
        ledger.could_not_be_compiled("late", "c1", &late, now);
        ledger.could_not_be_compiled("large", "c1", &large, now);
        let unfair = LoadError::CompileDeadline {
            limit,
            cpu: starved,
        };
        ledger.could_not_be_compiled("starved", "c1", &unfair, now);
        ledger.could_not_be_compiled("broken", "c1", &LoadError::CoreModule, now);
        // As it is read again.
        let text = serde_json::to_string(&ledger).unwrap();
        let mut ledger: Ledger = serde_json::from_str(&text).unwrap();
        let known = |ledger: &Ledger, compiler: &str, deadline, memory| -> Vec<String> {
            let settings = settings(deadline, memory);
            let known = ledger.too_much(compiler, &settings);
            known.map(|(digest, _)| digest.to_owned()).collect()
        };
        assert_eq!(known(&ledger, "c1", limit, 899), ["large", "late"]);
        assert_eq!(known(&ledger, "c1", limit, 901), ["late"]);
        assert_eq!(known(&ledger, "c1", 2 * limit, 800), ["large"]);
        assert!(known(&ledger, "c2", limit, 800).is_empty());
        let settings = settings(limit, 800);
        let mut errors = ledger.too_much("c1", &settings).map(|(_, error)| error);
        assert_eq!(errors.next().unwrap().to_string(), large.to_string());
        assert_eq!(errors.next().unwrap().to_string(), late.to_string());
        drop(errors);
        ledger.can_be_compiled("late");
        assert_eq!(known(&ledger, "c1", limit, 800), ["large"]);
        for at in 0..TOO_MUCH_MAX {
            let now = WallTime::from_ms(2);
            ledger.could_not_be_compiled(&format!("x{at}"), "c1", &late, now);
        }
        assert_eq!(ledger.too_much.len(), TOO_MUCH_MAX);
        assert!(!ledger.too_much.contains_key("large"), "the oldest goes");
    }
}
