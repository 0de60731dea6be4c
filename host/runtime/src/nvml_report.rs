//! How NVML is, told to metrics and `/readyz`. (The log hears of it from the source itself.)

use std::sync::Arc;

use device_api_core::ports::{NvmlObserver, NvmlStatus};

use crate::metrics::Metrics;
use crate::readiness::{Component, ComponentState, Readiness};

/// The observer to hand to the NVML source; without one (turned off), tell it so once.
#[derive(Debug)]
pub(crate) struct NvmlReport {
    metrics: Arc<Metrics>,
    component: Component,
}

impl NvmlReport {
    pub(crate) fn new(metrics: Arc<Metrics>, readiness: &Readiness) -> Self {
        Self {
            metrics,
            component: readiness.component("nvml"),
        }
    }
}

impl NvmlObserver for NvmlReport {
    fn nvml_status(&self, status: NvmlStatus) {
        let (state, detail) = match &status {
            NvmlStatus::Disabled => (
                ComponentState::Off,
                "turned off by --enable-nvml-provider=false".to_owned(),
            ),
            NvmlStatus::Missing { why } => (
                ComponentState::Degraded,
                format!("{why}; serving without it, looking again"),
            ),
            NvmlStatus::Ready {
                library,
                driver,
                gpus,
                simulated,
            } => {
                let simulated = if *simulated {
                    ", simulated: its faults are drills"
                } else {
                    ""
                };
                (
                    ComponentState::Up,
                    format!("{gpus} GPUs, driver {driver}, library {library}{simulated}"),
                )
            }
        };
        self.component.report(state, detail);
        self.metrics.nvml_status(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nvml_the_daemon_is_ready_and_says_what_is_missing() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let readiness = Readiness::default();
        let report = NvmlReport::new(metrics.clone(), &readiness);
        report.nvml_status(NvmlStatus::Missing {
            why: "no NVML library found (searched /x)".to_owned(),
        });
        let told = readiness.report();
        assert!(told.ready);
        assert_eq!(told.components[0].state, ComponentState::Degraded);
        assert!(told.components[0].detail.contains("/x"), "{told:?}");
        let text = metrics.render().expect("rendered");
        assert!(
            text.contains("\ndevice_api_server_nvml_provider_enabled 1\n"),
            "{text}"
        );
        assert!(
            text.contains("\ndevice_api_server_nvml_health_monitor_running 0\n"),
            "{text}"
        );

        let ready = NvmlStatus::Ready {
            library: "libx".to_owned(),
            driver: "580".to_owned(),
            gpus: 8,
            simulated: true,
        };
        report.nvml_status(ready);
        assert_eq!(readiness.report().components[0].state, ComponentState::Up);
        assert!(
            metrics
                .render()
                .expect("rendered")
                .contains("\ndevice_api_server_nvml_gpu_count 8\n")
        );
    }
}
