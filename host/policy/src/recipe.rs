//! What the instances of a policy are made from, one after another.

use std::sync::Arc;
use std::time::Instant;

use device_api_wasm::{CallError, CallStats, Program, Sandbox, thread_cpu_time};

use crate::bindings::gpu::device_policy::types as wit;
use crate::data::GuestData;
use crate::marker::Marker;
use crate::telemetry::Telemetry;
use crate::world::HealthWorld;

/// What a new instance is made from.
pub(crate) struct Recipe {
    pub(crate) program: Program<HealthWorld>,
    pub(crate) config: String,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) marker: Option<Arc<Marker>>,
}

impl Recipe {
    /// A new instance, and what it said when it was configured.
    pub(crate) fn start(
        &self,
    ) -> Result<(Sandbox<HealthWorld>, Result<wit::Info, String>), CallError> {
        let _marked = self.marker.as_deref().map(Marker::call);
        let data = GuestData::new(Arc::clone(&self.telemetry));
        let (begun, cpu) = (Instant::now(), thread_cpu_time());
        let started = Sandbox::start(&self.program, data, |store, guest| {
            guest
                .gpu_device_policy_policy()
                .call_configure(store, &self.config)
        });
        let took = CallStats {
            wall: begun.elapsed(),
            cpu: thread_cpu_time().saturating_sub(cpu),
            memory_bytes: 0,
        };
        self.telemetry.started(took, started.is_ok());
        started
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use device_api_wasm::{Engine, Limits};

    use super::*;
    use crate::component::{Memory, component};

    #[test]
    fn h2_a_start_that_fails_costs_processor_time_that_counts() {
        let work = "(local $i i32)
            (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if 0 (i32.lt_u (local.get $i) (i32.const 10000000))))
            unreachable";
        let bytes = component(&Memory::default(), work, "unreachable");
        let limits = Limits {
            start_deadline: Duration::from_secs(10),
            ..Limits::default()
        };
        let loaded = Engine::new().unwrap().load(&bytes, limits).unwrap();
        let recipe = Recipe {
            program: Program::link(&loaded).unwrap(),
            config: String::new(),
            telemetry: Arc::new(Telemetry::new("p.wasm", &limits)),
            marker: None,
        };
        assert!(matches!(recipe.start(), Err(CallError::Trap { .. })));
        let counters = recipe.telemetry.snapshot();
        // Ten million rounds at a few thousand million a second.
        assert!(counters.busy_cpu > Duration::from_millis(1), "{counters:?}");
        assert!(counters.busy >= counters.busy_cpu, "{counters:?}");
        assert_eq!(counters.instances, 0);
    }
}
