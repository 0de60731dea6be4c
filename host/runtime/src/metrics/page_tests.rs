//! docs/metrics.md, from the catalogue: written anew where `WRITE_DOCS` is set, else compared.

use device_api_core::action::Action;
use device_api_core::health::Health;
use device_api_core::limits::POLICIES_MAX;
use device_api_core::policy::FailureKind;
use device_api_core::policy_status::{LimitHit, Mode, Phase};
use device_api_core::signal::SignalKind;
use device_api_core::watch::EventType;
use device_api_grpc::{HandshakeFailure, RefusalReason, Turned};
use device_api_policy::CompileRefusal;

use super::catalog::{self, Kind, Spec};
use super::readings;
use super::updates::{OWN, PROVIDERS_NAMED_MAX};

/// Set to anything, the test writes the page instead of comparing it.
const WRITE: &str = "WRITE_DOCS";

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");

/// gRPC's status codes.
const CODES: usize = 17;

/// Methods of all services, with room for some; one for those that there are not; and [`FOREIGN`].
const METHODS: usize = 64;

/// Those of health and reflection.
const FOREIGN: usize = 5;

/// Sources of signals, as they are labelled.
const SOURCES: usize = 5;

/// What a label may be: how many values in one series of the labels before it, and which.
struct Values {
    count: usize,
    /// `Some`: as many times as there are of these.
    each: Option<&'static str>,
    words: String,
}

fn closed<'a>(words: impl IntoIterator<Item = &'a str>) -> Values {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    Values {
        count: words.len(),
        each: None,
        words: words.join(", "),
    }
}

fn one(words: &str) -> Values {
    Values {
        count: 1,
        each: None,
        words: words.to_owned(),
    }
}

fn many(count: usize, words: &str) -> Values {
    Values {
        count,
        ..one(words)
    }
}

fn each(of: &'static str, words: &str) -> Values {
    Values {
        each: Some(of),
        ..one(words)
    }
}

fn values(spec: &Spec, label: &str) -> Values {
    let short = spec.name.trim_start_matches("device_api_server_");
    if let Some(words) = readings::words(spec, label) {
        return closed(words);
    }
    match (short, label) {
        ("gpu_health" | "mig_instance_health", "state") => closed(Health::ALL.map(Health::as_str)),
        ("gpu_recommended_action", "action") => Values {
            count: 1,
            ..closed(Action::ALL.map(Action::as_str))
        },
        ("mig_instance_health", "uuid") => each("MIG instance", "of the instance"),
        ("mig_instance_health", "gpu") => one("UUID of its GPU"),
        (_, "uuid") => each("GPU", ""),
        ("nvml_hung_call_age_seconds", "gpu") => each("GPU", "see the help"),
        (_, "call") => many(2, "NVML's function"),
        (_, "product" | "index" | "pci" | "driver" | "profile") => one(""),
        (_, "simulated") => one("`true`, `false`"),
        (_, "policy") => each("policy", "its name"),
        (_, "version") if short.starts_with("policy") => one("its version"),
        (_, "version") => one("of the daemon"),
        (_, "revision") => one("of the source; `unknown` where the build did not say"),
        (_, "rustc" | "target") => one("of the build"),
        (_, "digest") => one("of the component"),
        (_, "mode") if short.starts_with("policy") => Values {
            count: 1,
            ..closed(Mode::ALL.map(Mode::as_str))
        },
        (_, "mode") => closed(super::LOCK_MODES),
        (_, "origin") => one("where its component comes from"),
        (_, "phase") => closed(Phase::ALL.map(Phase::as_str)),
        (_, "outcome") => closed(
            ["ok"]
                .into_iter()
                .chain(FailureKind::ALL.map(FailureKind::as_str)),
        ),
        (_, "limit") => closed(LimitHit::ALL.map(LimitHit::as_str)),
        ("cache_updates_total", "operation") => closed(["create", "update", "delete"]),
        ("cache_updates_total", "provider") => {
            let own = OWN.map(|word| format!("`{word}`")).join(", ");
            let count = OWN.len() + PROVIDERS_NAMED_MAX;
            let words = format!("{own}; the first {PROVIDERS_NAMED_MAX} that write, by name");
            many(count, &words)
        }
        ("watch_events_total", "type") => closed(EventType::ALL.map(EventType::as_str)),
        ("refusals_total", "reason") => closed(RefusalReason::ALL.map(RefusalReason::as_str)),
        ("connections_turned_away_total", "reason") => closed(Turned::ALL.map(Turned::as_str)),
        ("tls_handshakes_failed_total", "reason") => {
            closed(HandshakeFailure::ALL.map(HandshakeFailure::as_str))
        }
        ("tls_reloads_total", "result") => closed(["used", "broken"]),
        ("policy_compile_refused_total", "reason") => {
            closed(CompileRefusal::ALL.map(CompileRefusal::as_str))
        }
        ("fallbacks_total", "reason") => {
            let failures = FailureKind::ALL.map(FailureKind::as_str);
            closed(failures.into_iter().chain(["overdue", "queue-full"]))
        }
        (_, "source") => Values {
            count: SOURCES,
            ..closed(["nvml", "kmsg", "field-230", "provider", "host"])
        },
        (_, "kind") => closed(SignalKind::ALL.map(SignalKind::as_str)),
        (_, "grpc_service") => one("full name"),
        (_, "method" | "grpc_method") => many(METHODS, "name; `unknown`: there is none such"),
        (_, "code" | "grpc_code") => many(CODES, "as in Go: `OK`, `Canceled`, …"),
        other => panic!("{other:?}: say what it may be"),
    }
}

/// The unit, as the name has it by Prometheus' conventions.
fn unit(spec: &Spec) -> &'static str {
    let name = spec.name.trim_end_matches("_total");
    // Older than the convention here, and Unix time like the other.
    if name.ends_with("_begins")
        || name.ends_with("_expires")
        || name.ends_with("start_time_seconds")
    {
        return "Unix time, s";
    }
    let units = [
        ("_seconds", "s"),
        ("_bytes", "bytes"),
        ("_celsius", "°C"),
        ("_watts", "W"),
        ("_hertz", "Hz"),
        ("_ratio", "0 to 1"),
    ];
    let found = units.iter().find(|(end, _)| name.ends_with(end));
    found.map_or("", |(_, unit)| unit)
}

fn row(spec: &Spec) -> String {
    let mut labels = Vec::new();
    let (mut most, mut per) = (1, None);
    for label in spec.labels {
        let values = values(spec, label);
        most *= values.count;
        per = per.or(values.each);
        let words = match &*values.words {
            "" => String::new(),
            words => format!(" ({words})"),
        };
        labels.push(format!("`{label}`{words}"));
    }
    let kind = match spec.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(bounds) => {
            // The buckets, that of all, sum and count.
            most *= bounds.len() + 3;
            "histogram"
        }
    };
    let most = per.map_or(most.to_string(), |per| format!("{most} a {per}"));
    format!(
        "| `{}` | {kind} | {} | {} | {most} | {} |\n",
        spec.name,
        labels.join(", "),
        unit(spec),
        spec.help.trim_end_matches('.').replace('|', "\\|")
    )
}

fn page() -> String {
    let mut text = format!(
        "\
# Metrics

What `:9090/metrics` exports, from the table in the code; tests keep this page equal to it
(`WRITE_DOCS=1 cargo test -p device-api-runtime metrics_page` writes it anew), and a running daemon to this page.

*Series at most* is for one daemon, whatever clients and policies do: there are {POLICIES_MAX} policies at most, GPUs and MIG
instances together as `--limit gpus=` has it (1024), and what a client may choose, as a provider its name, is counted up to
a bound. Scraping calls no NVML: readings are those that were taken last, on the schedule of [readings.md](readings.md).

How one GPU is says `device_api_server_gpu_health`: of its states one is 1. What to do about it says
`device_api_server_gpu_recommended_action`, with the action as label:

```promql
device_api_server_gpu_health{{state=\"Unhealthy\"}} == 1
device_api_server_gpu_recommended_action{{action!=\"NONE\"}}
```

A reading that a GPU does not have, or that could not be had, is absent and not 0. While NVML does not answer for a GPU
(`device_api_server_gpu_nvml_state` is not 0) all of its readings are, since the last ones would pass for new; a lost or
replaced GPU has none either. Index, address and driver are on `device_api_server_gpu_info`, to join by `uuid`. Counters of
the device fall back to 0 with a reset or a reload of the driver, as `rate` and `increase` expect.

`device_api_server_cache_gpus_total` and `device_api_server_nvml_gpu_count` are gauges: the names are those of the system
that this one follows. All others pass `promtool check metrics`.

| metric | type | labels | unit | series at most | what |
| --- | --- | --- | --- | --- | --- |
"
    );
    for spec in catalog::ALL {
        text += &row(spec);
    }
    text
}

#[test]
fn metrics_page_is_that_of_the_catalogue() {
    let page = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(DOCS, &page).expect("written");
    }
    let is = std::fs::read_to_string(DOCS).expect("the page");
    assert!(
        is == page,
        "docs/metrics.md is stale: `WRITE_DOCS=1 cargo test -p device-api-runtime metrics_page` writes it anew"
    );
}

#[test]
fn there_are_no_more_methods_than_the_page_says() {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/nvidia");
    let mut ours = 0;
    for dialect in ["device/v1alpha1", "nvsentinel/v1alpha1"] {
        for file in std::fs::read_dir(format!("{FOLDER}/{dialect}")).expect("protos") {
            let proto = std::fs::read_to_string(file.expect("a file").path()).expect("a proto");
            ours += proto.matches("\n  rpc ").count();
        }
    }
    assert!(ours >= 39, "{ours}: is this test blind?");
    assert!(ours + FOREIGN < METHODS, "{ours}: raise METHODS");
}

#[test]
fn each_unit_is_one_of_the_base_units() {
    for wrong in [
        "_ms",
        "_milliseconds",
        "_percent",
        "_mhz",
        "_kib",
        "_milliwatts",
    ] {
        for spec in catalog::ALL {
            let name = spec.name.trim_end_matches("_total");
            assert!(!name.ends_with(wrong), "{}: another base unit", spec.name);
        }
    }
}
