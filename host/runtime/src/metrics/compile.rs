//! The compiler of policies, and its cache.

use device_api_policy::{CompileCounters, CompileRefusal};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

use super::{Maker, Metrics, advance, catalog, seconds};

#[derive(Debug)]
pub(super) struct Compile {
    compiled: IntCounter,
    refused: IntCounterVec,
    seconds: Gauge,
    memory: IntGauge,
    hits: IntCounter,
    damaged: IntCounter,
    errors: IntCounter,
    evicted: IntCounter,
}

impl Compile {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            compiled: make.counter(&catalog::COMPILE_COMPILED)?,
            refused: make.counters(&catalog::COMPILE_REFUSED)?,
            seconds: make.real_gauge(&catalog::COMPILE_SECONDS)?,
            memory: make.gauge(&catalog::COMPILE_MEMORY)?,
            hits: make.counter(&catalog::COMPILE_CACHE_HITS)?,
            damaged: make.counter(&catalog::COMPILE_CACHE_DAMAGED)?,
            errors: make.counter(&catalog::COMPILE_CACHE_ERRORS)?,
            evicted: make.counter(&catalog::COMPILE_CACHE_EVICTED)?,
        })
    }

    pub(super) fn begin_closed_sets(&self) {
        for refusal in CompileRefusal::ALL {
            self.refused.with_label_values(&[refusal.as_str()]);
        }
    }
}

impl Metrics {
    /// What the compiler of policies counted since its start.
    pub(crate) fn compile_counts(&self, counts: &CompileCounters) {
        let compile = &self.compile;
        advance(&compile.compiled, counts.compiled);
        for (refusal, total) in CompileRefusal::ALL.into_iter().zip(counts.refused) {
            let counter = compile.refused.with_label_values(&[refusal.as_str()]);
            advance(&counter, total);
        }
        compile.seconds.set(seconds(counts.last_wall));
        let peak = i64::try_from(counts.last_memory_peak_bytes);
        compile.memory.set(peak.unwrap_or(i64::MAX));
        advance(&compile.hits, counts.cache_hits);
        advance(&compile.damaged, counts.cache_damaged);
        advance(&compile.errors, counts.cache_errors);
        advance(&compile.evicted, counts.cache_evicted);
    }
}
