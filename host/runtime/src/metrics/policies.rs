//! The policies, as their host tells of them at each scrape. So there is nothing here to fall behind, and what is
//! gone is gone: a series of an earlier version, or of a policy that was removed.

use std::sync::Arc;

use device_api_core::limits::POLICIES_MAX;
use device_api_core::policy::FailureKind;
use device_api_core::policy_status::{
    LimitHit, Phase, PolicyCounters, PolicyHostStatus, PolicyStatus,
};
use device_api_core::ports::Policies;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::catalog::{self, Spec};
use super::series::{self, Series};
use super::{Metrics, seconds};

/// The outcome of a call that gave a decision.
const OK: &str = "ok";

/// Adds the series of a policy.
type Read = fn(&PolicyStatus, &mut Series<'_>);

/// Each metric that is read off a policy, and how.
const READ: [(&Spec, Read); 20] = [
    (&catalog::POLICY_INFO, info),
    (&catalog::POLICY_PHASE, phases),
    (&catalog::POLICY_EVALUATIONS, evaluations),
    (&catalog::POLICY_CALL_SECONDS, durations),
    (&catalog::POLICY_CPU, |policy, series| {
        series.add(policy, &[], seconds(policy.counters.busy_cpu));
    }),
    (&catalog::POLICY_DEADLINE_MISSES, |policy, series| {
        series.count(policy, failures(&policy.counters, FailureKind::Deadline));
    }),
    (&catalog::POLICY_TRAPS, |policy, series| {
        series.count(policy, failures(&policy.counters, FailureKind::Trap));
    }),
    (&catalog::POLICY_LIMITS_HIT, |policy, series| {
        for (limit, hits) in LimitHit::ALL.iter().zip(policy.counters.limits_hit) {
            series.add(policy, &[limit.as_str()], hits as f64);
        }
    }),
    (&catalog::POLICY_INSTANCES, |policy, series| {
        series.count(policy, policy.counters.instances);
    }),
    (&catalog::POLICY_MEMORY_PEAK, |policy, series| {
        series.count(policy, policy.counters.memory_bytes_peak);
    }),
    (&catalog::POLICY_STATE_PEAK, |policy, series| {
        series.count(policy, policy.counters.state_bytes_peak);
    }),
    (&catalog::POLICY_LOG_DROPPED, |policy, series| {
        series.count(policy, policy.counters.log_lines_suppressed);
    }),
    (&catalog::POLICY_UNKNOWN_WORDS, |policy, series| {
        series.count(policy, policy.counters.unknown_words);
    }),
    (&catalog::POLICY_SWAPS, |policy, series| {
        series.count(policy, policy.counters.swaps);
    }),
    (&catalog::POLICY_QUARANTINES, |policy, series| {
        series.count(policy, policy.counters.quarantines);
    }),
    (&catalog::POLICY_QUARANTINED, |policy, series| {
        series.count(policy, policy.quarantined.len() as u64);
    }),
    (&catalog::POLICY_HELD, |policy, series| {
        series.count(policy, u64::from(policy.held.is_some()));
    }),
    (&catalog::POLICY_SHADOW_COMPARED, |policy, series| {
        series.count(policy, policy.counters.shadow_compared);
    }),
    (&catalog::POLICY_SHADOW_DISAGREEMENTS, |policy, series| {
        series.count(policy, policy.counters.shadow_disagreements);
    }),
    (&catalog::POLICY_SHADOW_DROPPED, |policy, series| {
        series.count(policy, policy.counters.shadow_dropped);
    }),
];

/// Adds what is no single policy's.
type ReadHost = fn(&PolicyHostStatus) -> u64;

const READ_HOST: [(&Spec, ReadHost); 4] = [
    (&catalog::POLICY_SET_REFUSED, |host| {
        u64::from(host.refused.is_some())
    }),
    (&catalog::POLICY_SETS_REFUSED, |host| host.sets_refused),
    (&catalog::POLICY_LEDGER_WRITABLE, |host| {
        u64::from(host.unsaved.is_none())
    }),
    (&catalog::POLICY_LEDGER_SET_ASIDE, |host| {
        u64::from(host.damage.is_some())
    }),
];

impl Metrics {
    /// Tells of these policies from now on, as they are at each scrape. To be called once.
    ///
    /// # Errors
    /// It was called before.
    pub(crate) fn watch_policies(&self, policies: Arc<dyn Policies>) -> prometheus::Result<()> {
        let specs = READ.iter().map(|(spec, _)| spec);
        let specs = specs.chain(READ_HOST.iter().map(|(spec, _)| spec));
        let descs = series::descs(specs)?;
        self.registry
            .register(Box::new(Watched { policies, descs }))
    }
}

/// Policies that are looked at when they are asked for.
#[derive(Debug)]
struct Watched {
    policies: Arc<dyn Policies>,
    descs: Vec<Desc>,
}

impl Collector for Watched {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut policies = self.policies.list();
        // One series that is there twice costs the whole scrape.
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        policies.dedup_by(|a, b| a.name == b.name);
        // A directory full of what is none must not hide those that judge.
        policies.sort_by_key(PolicyStatus::rank);
        policies.truncate(POLICIES_MAX);
        let family = |(spec, read): &(&Spec, Read)| {
            let mut series = Series::new(spec);
            for policy in &policies {
                read(policy, &mut series);
            }
            series.into_family()
        };
        let host = self.policies.host();
        let of_host = |(spec, read): &(&Spec, ReadHost)| {
            let mut series = Series::new(spec);
            series.put([], read(&host) as f64);
            series.into_family()
        };
        READ.iter()
            .map(family)
            .chain(READ_HOST.iter().map(of_host))
            .collect()
    }
}

impl Series<'_> {
    fn count(&mut self, policy: &PolicyStatus, value: u64) {
        self.add(policy, &[], value as f64);
    }

    /// One more; `labels` are the values of those after the first, which is the policy's name.
    fn add(&mut self, policy: &PolicyStatus, labels: &[&str], value: f64) {
        let labels = labels.iter().copied();
        self.put(std::iter::once(&*policy.name).chain(labels), value);
    }
}

/// Of the version that is asked, or looks on; where there is none, there is none to tell of.
fn info(policy: &PolicyStatus, series: &mut Series<'_>) {
    if let Some(active) = &policy.active {
        let labels = [
            &*active.id.version,
            &*active.id.digest,
            policy.mode.as_str(),
            &*active.origin,
        ];
        series.add(policy, &labels, 1.0);
    }
}

fn phases(policy: &PolicyStatus, series: &mut Series<'_>) {
    for phase in Phase::ALL {
        let is_in = u8::from(phase == policy.phase);
        series.add(policy, &[phase.as_str()], f64::from(is_in));
    }
}

fn evaluations(policy: &PolicyStatus, series: &mut Series<'_>) {
    let counters = &policy.counters;
    let failed: u64 = counters.failures.iter().sum();
    series.add(policy, &[OK], counters.calls.saturating_sub(failed) as f64);
    for kind in FailureKind::ALL {
        series.add(policy, &[kind.as_str()], failures(counters, kind) as f64);
    }
}

fn failures(counters: &PolicyCounters, wanted: FailureKind) -> u64 {
    let mut counted = FailureKind::ALL.into_iter().zip(counters.failures);
    let found = counted.find(|(kind, _)| *kind == wanted);
    found.map_or(0, |(_, calls)| calls)
}

fn durations(policy: &PolicyStatus, series: &mut Series<'_>) {
    let counters = &policy.counters;
    let mut below = 0;
    let bounds = catalog::POLICY_CALL.iter().zip(counters.latency);
    let buckets = bounds.map(|(bound, calls)| {
        below += calls;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    // Not `calls`: a histogram agrees with itself, also where a call is being counted.
    histogram.set_sample_count(counters.latency.iter().sum());
    histogram.set_sample_sum(seconds(counters.busy));
    series.put_histogram([&*policy.name], histogram);
}

#[cfg(test)]
#[path = "policies_tests.rs"]
pub(super) mod tests;
