//! Changes of the cache, by what was done and on whose word.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use device_api_cache::Author;
use device_api_core::watch::EventType;
use prometheus::IntCounterVec;

use super::{Maker, catalog};

/// Providers that have series of their own, the first that wrote: as many agents as a node has, and more. Names are
/// their own choice, so what comes after is [`OTHER`].
pub(super) const PROVIDERS_NAMED_MAX: usize = 16;

const NVML: &str = "nvml";
const PIPELINE: &str = "pipeline";
const HOST: &str = "host";
const OTHER: &str = "other";

/// The daemon's own words: a provider of such a name is [`OTHER`], or it would pass for the daemon.
pub(super) const OWN: [&str; 4] = [NVML, PIPELINE, HOST, OTHER];

#[derive(Debug)]
pub(super) struct Updates {
    counted: IntCounterVec,
    named: Mutex<BTreeSet<Arc<str>>>,
}

impl Updates {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        let counted = make.counters(&catalog::CACHE_UPDATES)?;
        for operation in EventType::ALL.map(operation) {
            for author in OWN {
                counted.with_label_values(&[operation, author]);
            }
        }
        Ok(Self {
            counted,
            named: Mutex::default(),
        })
    }

    pub(super) fn count(&self, change: EventType, by: &Author) {
        let author = match by {
            Author::Host => HOST,
            Author::Nvml => NVML,
            Author::Pipeline => PIPELINE,
            Author::Provider(name) => self.label(name),
        };
        self.counted
            .with_label_values(&[operation(change), author])
            .inc();
    }

    fn label<'a>(&self, name: &'a Arc<str>) -> &'a str {
        if OWN.contains(&&**name) {
            return OTHER;
        }
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = named.contains(name)
            || (named.len() < PROVIDERS_NAMED_MAX && named.insert(name.clone()));
        if is_named { name } else { OTHER }
    }
}

fn operation(change: EventType) -> &'static str {
    match change {
        EventType::Added => "create",
        EventType::Modified => "update",
        EventType::Deleted => "delete",
    }
}

#[cfg(test)]
#[path = "updates_tests.rs"]
mod tests;
