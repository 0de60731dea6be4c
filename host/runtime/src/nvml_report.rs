//! How NVML is, told to metrics and `/readyz`. (The log hears of it from the source itself.)

use std::sync::Arc;

use device_api_core::ports::{NvmlObserver, NvmlStatus};

use device_api_nvml::{HungCall, Monitor};

use crate::metrics::Metrics;
use crate::readiness::{Component, PartState, Readiness};

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
                PartState::Off,
                "turned off by --enable-nvml-provider=false".to_owned(),
            ),
            NvmlStatus::Missing { why } => (
                PartState::Degraded,
                format!("{why}; serving without it, looking again"),
            ),
            NvmlStatus::Released { purpose, .. } => (
                PartState::Degraded,
                format!(
                    "let go of for a {}, until attached again or its time is over",
                    purpose.as_str()
                ),
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
                    PartState::Up,
                    format!("{gpus} GPUs, driver {driver}, library {library}{simulated}"),
                )
            }
        };
        self.component.report(state, detail);
        self.metrics.nvml_status(status);
    }
}

/// Has `/readyz` say which NVML calls hang, on which GPU, and how long; and whose events are not waited for.
pub(crate) fn watch_calls(monitor: &Monitor, readiness: &Readiness) {
    let calls = monitor.clone();
    readiness.asked("nvml-calls", move || told(&calls.hung()));
    let events = monitor.clone();
    readiness.asked("nvml-events", move || events_told(events.missing_events()));
}

fn events_told(missing: Option<String>) -> (PartState, String) {
    match missing {
        None => (PartState::Up, "waited for, where NVML is in use".to_owned()),
        Some(missing) => (
            PartState::Degraded,
            format!("{missing}; of these, XIDs come from the kernel log only, while it is read"),
        ),
    }
}

fn told(hung: &[HungCall]) -> (PartState, String) {
    if hung.is_empty() {
        return (PartState::Up, "none hangs".to_owned());
    }
    let calls: Vec<String> = hung.iter().map(HungCall::to_string).collect();
    let detail = format!("{}; GPUs on which none hangs are read on", calls.join(", "));
    (PartState::Degraded, detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use device_api_core::clock::WallTime;
    use device_api_core::ids::DeviceUuid;
    use device_api_core::recovery::ReleaseFor;

    use super::*;

    #[test]
    fn n1_readyz_and_metrics_say_which_call_on_which_gpu_hangs_and_how_long() {
        assert_eq!(told(&[]).0, PartState::Up);
        let hung = HungCall {
            call: "nvmlDeviceGetTemperature",
            device: Some(DeviceUuid::new("GPU-7")),
            peer: None,
            index: None,
            age: Duration::from_secs(12),
        };
        let (state, detail) = told(std::slice::from_ref(&hung));
        assert_eq!(state, PartState::Degraded);
        assert!(
            detail.contains("nvmlDeviceGetTemperature on GPU-7 has hung for 12.0 s"),
            "{detail}"
        );
        let metrics = Metrics::new().expect("metrics");
        let series = "device_api_server_nvml_hung_call_age_seconds{call=\"nvmlDeviceGetTemperature\",gpu=\"GPU-7\"} 12";
        // Two that have told no UUID: a series each.
        let at = |index| HungCall {
            device: None,
            index: Some(index),
            ..hung.clone()
        };
        metrics.nvml_hung(&[hung.clone(), at(2), at(3)]);
        let rendered = metrics.render().expect("rendered");
        assert!(rendered.contains(series));
        for gpu in ["the GPU at index 2", "the GPU at index 3"] {
            assert!(rendered.contains(&format!("gpu=\"{gpu}\"")), "{rendered}");
        }
        metrics.nvml_hung(&[]);
        assert!(
            !metrics
                .render()
                .expect("rendered")
                .contains("nvml_hung_call_age_seconds{")
        );
    }

    #[test]
    fn n3_events_that_nobody_waits_for_are_told_by_readyz_and_metrics() {
        assert_eq!(events_told(None).0, PartState::Up);
        let (state, detail) = events_told(Some("no events of GPU-7: nvmlX failed".to_owned()));
        assert_eq!(state, PartState::Degraded);
        assert!(detail.contains("GPU-7"), "{detail}");
        let metrics = Metrics::new().expect("metrics");
        for (hears, shown) in [(true, 1), (false, 0), (true, 1)] {
            metrics.nvml_hears(hears);
            let text = metrics.render().expect("rendered");
            let line = format!("\ndevice_api_server_nvml_health_monitor_running {shown}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn n2_a_driver_that_is_let_go_of_is_no_missing_one() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let readiness = Readiness::default();
        let report = NvmlReport::new(metrics.clone(), &readiness);
        report.nvml_status(NvmlStatus::Released {
            purpose: ReleaseFor::Upgrade,
            until: WallTime::default(),
        });
        let told = readiness.report();
        assert!(told.ready);
        assert_eq!(told.components[0].state, PartState::Degraded);
        assert!(told.components[0].detail.contains("upgrade"), "{told:?}");
        let text = metrics.render().expect("rendered");
        for line in ["nvml_health_monitor_running 0", "nvml_released 1"] {
            let line = format!("\ndevice_api_server_{line}\n");
            assert!(text.contains(&line), "{text}");
        }
        report.nvml_status(NvmlStatus::Missing {
            why: "gone".to_owned(),
        });
        let text = metrics.render().expect("rendered");
        assert!(
            text.contains("\ndevice_api_server_nvml_released 0\n"),
            "{text}"
        );
    }

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
        assert_eq!(told.components[0].state, PartState::Degraded);
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
        assert_eq!(readiness.report().components[0].state, PartState::Up);
        assert!(
            metrics
                .render()
                .expect("rendered")
                .contains("\ndevice_api_server_nvml_gpu_count 8\n")
        );
    }
}
