//! What a store carries besides the world's own data: the meter that counts what the guest uses.

use std::fmt;
use std::time::Instant;

use wasmtime::ResourceLimiter;

use crate::error::CallError;
use crate::limits::Limits;

/// What host functions see: the world's data, and the meter.
pub struct Ctx<D> {
    pub data: D,
    pub(crate) meter: Meter,
}

impl<D> Ctx<D> {
    pub(crate) fn new(data: D, limits: &Limits) -> Self {
        Self {
            data,
            meter: Meter::new(limits),
        }
    }

    /// Counts one host call. To be called first in every host function, and passed on with `?`.
    ///
    /// # Errors
    /// Past [`Limits::host_calls_max`] the error traps the guest.
    pub fn charge_host_call(&mut self) -> wasmtime::Result<()> {
        self.meter.charge_host_call()
    }

    /// All linear memories of the instance together.
    pub fn memory_bytes(&self) -> usize {
        self.meter.memory_bytes
    }
}

impl<D> fmt::Debug for Ctx<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("meter", &self.meter)
            .finish_non_exhaustive()
    }
}

/// Why the meter stopped a guest; travels through the engine's error and is found again there.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {limit} host calls")]
pub(crate) struct HostCallsExhausted {
    pub(crate) limit: u32,
}

/// A growth that was refused. The guest sees the refusal as any program sees "out of memory" and
/// may get over it; if it does not, this tells the cause of the trap that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Memory { wanted_bytes: usize },
    Table { wanted: usize },
}

#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    memory_bytes: usize,
    table_elements: usize,
    host_calls_left: u32,
    deadline: Instant,
    denied: Option<Denied>,
}

impl Meter {
    fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            memory_bytes: 0,
            table_elements: 0,
            host_calls_left: 0,
            deadline: Instant::now(),
            denied: None,
        }
    }

    /// A new call begins: what is counted per call starts again.
    pub(crate) fn begin(&mut self, deadline: Instant) {
        self.host_calls_left = self.limits.host_calls_max;
        self.deadline = deadline;
        self.denied = None;
    }

    pub(crate) fn is_past_deadline(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn charge_host_call(&mut self) -> wasmtime::Result<()> {
        let limit = self.limits.host_calls_max;
        self.host_calls_left = self
            .host_calls_left
            .checked_sub(1)
            .ok_or_else(|| wasmtime::Error::new(HostCallsExhausted { limit }))?;
        Ok(())
    }

    /// The error for a growth refused during this call, `then` being what came of it.
    pub(crate) fn denial(&self, then: &str) -> Option<CallError> {
        let then = then.to_owned();
        self.denied.map(|denied| match denied {
            Denied::Memory { wanted_bytes } => CallError::MemoryLimit {
                wanted_bytes,
                limit_bytes: self.limits.memory_bytes_max,
                then,
            },
            Denied::Table { wanted } => CallError::TableLimit {
                wanted,
                limit: self.limits.table_elements_max,
                then,
            },
        })
    }
}

/// What all would be after one of them grew from `current` to `desired`; `None` where the growth
/// exceeds the guest's own declared `maximum`, so that it will fail and must not be counted.
fn grown(total: usize, current: usize, desired: usize, maximum: Option<usize>) -> Option<usize> {
    let may_succeed = maximum.is_none_or(|maximum| desired <= maximum);
    may_succeed.then(|| total.saturating_add(desired.saturating_sub(current)))
}

/// A growth that was granted and then fails for want of system memory stays counted: too much
/// rather than too little.
impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let Some(wanted_bytes) = grown(self.memory_bytes, current, desired, maximum) else {
            return Ok(true);
        };
        if wanted_bytes > self.limits.memory_bytes_max {
            self.denied = Some(Denied::Memory { wanted_bytes });
            return Ok(false);
        }
        self.memory_bytes = wanted_bytes;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let Some(wanted) = grown(self.table_elements, current, desired, maximum) else {
            return Ok(true);
        };
        if wanted > self.limits.table_elements_max {
            self.denied = Some(Denied::Table { wanted });
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances_max
    }

    fn tables(&self) -> usize {
        self.limits.tables_max
    }

    fn memories(&self) -> usize {
        self.limits.memories_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 65_536;

    fn meter(pages: usize) -> Meter {
        Meter::new(&Limits {
            memory_bytes_max: pages * PAGE,
            ..Limits::default()
        })
    }

    #[test]
    fn the_limit_is_over_all_memories() {
        let mut meter = meter(4);
        assert!(meter.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(meter.memory_growing(0, PAGE, None).unwrap());
        assert!(!meter.memory_growing(PAGE, 2 * PAGE, None).unwrap());
        assert_eq!(
            meter.denied,
            Some(Denied::Memory {
                wanted_bytes: 5 * PAGE
            })
        );
        assert_eq!(meter.memory_bytes, 4 * PAGE);
    }

    #[test]
    fn growth_that_the_guest_itself_forbids_is_not_counted() {
        let mut meter = meter(4);
        assert!(
            meter
                .memory_growing(PAGE, 3 * PAGE, Some(2 * PAGE))
                .unwrap()
        );
        assert_eq!((meter.memory_bytes, meter.denied), (0, None));
    }

    #[test]
    fn a_new_call_forgets_refusals_and_refills_host_calls() {
        let mut meter = Meter::new(&Limits {
            host_calls_max: 1,
            ..Limits::default()
        });
        meter.begin(Instant::now());
        assert!(!meter.memory_growing(0, usize::MAX, None).unwrap());
        assert!(meter.charge_host_call().is_ok());
        assert!(meter.charge_host_call().is_err());
        meter.begin(Instant::now());
        assert!(meter.denial("").is_none());
        assert!(meter.charge_host_call().is_ok());
    }
}
