use device_api_cache::{Author, CacheObserver as _};

use super::super::Metrics;
use super::super::tests::{check, rendered};
use super::*;

#[test]
fn changes_are_counted_by_what_was_done_and_on_whose_word() {
    let metrics = Metrics::new().expect("metrics");
    metrics.updated(EventType::Added, &Author::Nvml);
    metrics.updated(EventType::Modified, &Author::Pipeline);
    metrics.updated(EventType::Modified, &Author::Provider("agent".into()));
    metrics.updated(EventType::Deleted, &Author::Host);
    let text = rendered(&metrics);
    for (operation, provider, count) in [
        ("create", "nvml", 1),
        ("update", "pipeline", 1),
        ("update", "agent", 1),
        ("delete", "host", 1),
        ("create", "pipeline", 0),
        ("delete", "other", 0),
    ] {
        check(
            &text,
            &format!(
                "device_api_server_cache_updates_total{{operation=\"{operation}\",provider=\"{provider}\"}} {count}"
            ),
        );
    }
}

#[test]
fn names_that_providers_choose_are_bounded_and_none_is_the_daemons() {
    let metrics = Metrics::new().expect("metrics");
    for own in OWN {
        metrics.updated(EventType::Modified, &Author::Provider(own.into()));
    }
    let rounds = 3 * PROVIDERS_NAMED_MAX;
    for n in 0..rounds {
        let name = format!("x\"}}\n{n}");
        metrics.updated(EventType::Modified, &Author::Provider(name.as_str().into()));
    }
    let text = rendered(&metrics);
    let lines = text.lines();
    let series = lines.filter(|line| line.starts_with("device_api_server_cache_updates_total{"));
    // Those of the daemon are there of each operation, from the start.
    assert_eq!(series.count(), 3 * OWN.len() + PROVIDERS_NAMED_MAX);
    check(
        &text,
        "device_api_server_cache_updates_total{operation=\"update\",provider=\"nvml\"} 0",
    );
    let other = OWN.len() + rounds - PROVIDERS_NAMED_MAX;
    check(
        &text,
        &format!(
            "device_api_server_cache_updates_total{{operation=\"update\",provider=\"other\"}} {other}"
        ),
    );
}
