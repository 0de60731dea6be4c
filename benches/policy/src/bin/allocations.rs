//! Counts what the pipeline allocates, for `device-api-policy-bench`, which starts it: an allocator that
//! counts would slow down everything else that is measured.

use std::alloc::System;
use std::io::Write as _;

use policy_bench::{Counts, Plan, count};
use stats_alloc::StatsAlloc;

#[global_allocator]
static COUNTING: StatsAlloc<System> = StatsAlloc::system();

/// What grows in place counts as an allocation of what it grows by.
fn counts() -> Counts {
    let stats = COUNTING.stats();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Counts {
        allocations: count(stats.allocations + stats.reallocations),
        bytes: count(stats.bytes_allocated),
    }
}

fn main() -> anyhow::Result<()> {
    let is_quick = std::env::args().nth(1).is_some_and(|word| word == "quick");
    let plan = if is_quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let measured = count(&plan, &counts)?;
    Ok(writeln!(std::io::stdout().lock(), "{measured}")?)
}
