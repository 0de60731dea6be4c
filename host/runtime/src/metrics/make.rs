//! Metrics made from their entries in the catalogue.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::catalog::{Kind, Spec};

/// Makes and registers metrics from their specification.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&self, spec: &Spec) -> prometheus::Result<IntCounter> {
        debug_assert!(
            spec.kind == Kind::Counter && spec.labels.is_empty(),
            "{spec:?}"
        );
        self.register(IntCounter::new(spec.name, spec.help)?)
    }

    pub(super) fn counters(&self, spec: &Spec) -> prometheus::Result<IntCounterVec> {
        debug_assert!(spec.kind == Kind::Counter, "{spec:?}");
        self.register(IntCounterVec::new(
            Opts::new(spec.name, spec.help),
            spec.labels,
        )?)
    }

    pub(super) fn gauge(&self, spec: &Spec) -> prometheus::Result<IntGauge> {
        debug_assert!(
            spec.kind == Kind::Gauge && spec.labels.is_empty(),
            "{spec:?}"
        );
        self.register(IntGauge::new(spec.name, spec.help)?)
    }

    /// Of what is no whole number.
    pub(super) fn real_gauge(&self, spec: &Spec) -> prometheus::Result<Gauge> {
        debug_assert!(
            spec.kind == Kind::Gauge && spec.labels.is_empty(),
            "{spec:?}"
        );
        self.register(Gauge::new(spec.name, spec.help)?)
    }

    pub(super) fn gauges(&self, spec: &Spec) -> prometheus::Result<IntGaugeVec> {
        debug_assert!(spec.kind == Kind::Gauge, "{spec:?}");
        self.register(IntGaugeVec::new(
            Opts::new(spec.name, spec.help),
            spec.labels,
        )?)
    }

    pub(super) fn histogram(&self, spec: &Spec) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(buckets(spec))?)
    }

    pub(super) fn histograms(&self, spec: &Spec) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(buckets(spec), spec.labels)?)
    }
}

fn buckets(spec: &Spec) -> HistogramOpts {
    let bounds = match spec.kind {
        Kind::Histogram(bounds) => bounds.to_vec(),
        Kind::Counter | Kind::Gauge => Vec::new(),
    };
    HistogramOpts::new(spec.name, spec.help).buckets(bounds)
}
