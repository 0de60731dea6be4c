//! Series that are made at the scrape, of what is there then.

use prometheus::core::Desc;
use prometheus::proto;

use super::catalog::{Kind, Spec};

/// What a collector tells the registry of its metrics.
///
/// # Errors
/// A name or a label is none.
pub(super) fn descs<'a>(
    specs: impl IntoIterator<Item = &'a &'a Spec>,
) -> prometheus::Result<Vec<Desc>> {
    let desc = |spec: &&Spec| {
        let labels = spec.labels.iter().map(|label| (*label).to_owned());
        let (name, help) = (spec.name.to_owned(), spec.help.to_owned());
        Desc::new(name, help, labels.collect(), [].into())
    };
    specs.into_iter().map(desc).collect()
}

/// The series of one metric.
#[derive(Debug)]
pub(super) struct Series<'a> {
    spec: &'a Spec,
    metrics: Vec<proto::Metric>,
}

impl<'a> Series<'a> {
    pub(super) fn new(spec: &'a Spec) -> Self {
        Self {
            spec,
            metrics: Vec::new(),
        }
    }

    /// One more, with the values of its labels. No two may have the same: that costs the whole scrape.
    pub(super) fn put<'v>(&mut self, labels: impl IntoIterator<Item = &'v str>, value: f64) {
        let mut metric = self.metric(labels);
        match self.spec.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram(_) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.metrics.push(metric);
    }

    pub(super) fn put_histogram<'v>(
        &mut self,
        labels: impl IntoIterator<Item = &'v str>,
        histogram: proto::Histogram,
    ) {
        let mut metric = self.metric(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn metric<'v>(&self, labels: impl IntoIterator<Item = &'v str>) -> proto::Metric {
        let named = self.spec.labels.iter().zip(labels);
        let mut pairs: Vec<_> = named
            .map(|(name, value)| {
                let mut pair = proto::LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.to_owned());
                pair
            })
            .collect();
        // As those of the other metrics are.
        pairs.sort_by(|a, b| a.name().cmp(b.name()));
        proto::Metric::from_label(pairs)
    }

    pub(super) fn into_family(self) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.spec.name.to_owned());
        family.set_help(self.spec.help.to_owned());
        family.set_field_type(match self.spec.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram(_) => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(self.metrics);
        family
    }
}
