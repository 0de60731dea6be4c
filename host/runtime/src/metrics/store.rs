//! The durable store.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Maker, Metrics, catalog, seconds};

#[derive(Debug)]
pub(super) struct Store {
    commit: Histogram,
    batches: IntCounter,
    failures: IntCounter,
    bytes: IntGauge,
    writable: IntGauge,
    set_aside: IntCounter,
}

impl Store {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        let store = Self {
            commit: make.histogram(&catalog::STORE_COMMIT)?,
            batches: make.counter(&catalog::STORE_BATCHES)?,
            failures: make.counter(&catalog::STORE_FAILURES)?,
            bytes: make.gauge(&catalog::STORE_BYTES)?,
            writable: make.gauge(&catalog::STORE_WRITABLE)?,
            set_aside: make.counter(&catalog::STORE_SET_ASIDE)?,
        };
        store.writable.set(1);
        Ok(store)
    }
}

impl Metrics {
    /// A commit of `batches` writes went well.
    pub(crate) fn store_committed(&self, elapsed: Duration, batches: u64) {
        self.store.commit.observe(seconds(elapsed));
        self.store.batches.inc_by(batches);
    }

    /// A commit failed; until [`Metrics::store_recovered`] nothing becomes durable.
    pub(crate) fn store_failed(&self) {
        self.store.failures.inc();
        self.store.writable.set(0);
    }

    pub(crate) fn store_recovered(&self) {
        self.store.writable.set(1);
    }

    pub(crate) fn store_size(&self, bytes: u64) {
        self.store
            .bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn store_set_aside(&self) {
        self.store.set_aside.inc();
    }
}
