//! What the benchmarks have in common: medians and their spread, goals, and the report.
//!
//! Numbers are compared within one run, so a [`Row`] holds the [`Spread`] over its rounds, not one number.

mod report;
mod resident;
mod stats;

pub use report::{Figures, Goal, Report, Row, Section};
pub use resident::resident_kib;
pub use stats::{Spread, quantile};
