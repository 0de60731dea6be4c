//! docs/xid-policy.md: each `policies.yaml` on it is read, checked against the schema, given to the component, and
//! answers as the page says below it. And what an operator's windows do over time.

use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::verdict::Severity;
use serde_json::Value;

use crate::asked::{DRIVER, Gpu, health, load, try_load, xid};
use crate::profiles::data;
use crate::schema::schema;
use crate::validator::accepts;

const HOUR: Duration = Duration::from_secs(3600);

/// The fenced blocks of the page, with their language.
fn blocks() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/xid-policy.md");
    let page = std::fs::read_to_string(path).unwrap();
    page.split("```")
        .skip(1)
        .step_by(2)
        .map(|block| {
            let (language, text) = block.split_once('\n').unwrap();
            (language.to_owned(), text.to_owned())
        })
        .collect()
}

/// `policies.yaml` as the daemon reads it, and what it hands to the policy.
fn config(text: &str) -> Value {
    let file: Value = serde_saphyr::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"));
    let entry = &file["policies"][0];
    assert_eq!(entry["name"], "xid-policy", "{text}");
    entry["config"].clone()
}

#[test]
fn every_example_of_the_page_does_what_it_says() {
    let blocks = blocks();
    let mut tried = 0;
    for pair in blocks.windows(2) {
        let [(yaml, file), (text, answers)] = pair else {
            continue;
        };
        if yaml != "yaml" || text != "text" {
            continue;
        }
        let config = config(file);
        assert!(accepts(&schema(), &schema(), &config), "{config}");
        let policy = load(&config.to_string());
        for line in answers.lines() {
            let (seen, expected) = line.split_once(" -> ").expect(line);
            let mut gpu = Gpu::new(&policy, DRIVER);
            let (code, times) = seen.split_once(" x ").unwrap_or((seen, "1"));
            let code = code.strip_prefix("XID ").unwrap().trim().parse().unwrap();
            for _ in 0..times.trim().parse::<u32>().unwrap() {
                gpu.see(xid(
                    code,
                    "Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): x",
                ));
                gpu.pass(HOUR);
            }
            let said = gpu.worst().map_or_else(
                || "nothing".to_owned(),
                |worst| {
                    format!(
                        "{} {} {}",
                        health(worst.severity),
                        worst.condition,
                        worst.action.as_str()
                    )
                },
            );
            assert_eq!(said, expected.trim(), "{line}\n{config}");
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried}");
}

#[test]
fn every_refusal_of_the_page_is_the_policys() {
    let mut tried = 0;
    for (language, text) in blocks() {
        if language != "refused" {
            continue;
        }
        for line in text.lines() {
            let (config, why) = line.split_once(" -> ").expect(line);
            let said = try_load(config, 100_000).expect_err(config);
            assert!(said.contains(why.trim()), "{line}\n{said}");
            tried += 1;
        }
    }
    assert!(tried >= 4, "{tried}");
}

/// The kernel's own lines of one GPC and TPC, an hour apart.
fn faults() -> Vec<String> {
    let samples = std::fs::read_to_string(data("xid-kmsg-samples.tsv")).unwrap();
    let line = samples
        .lines()
        .find(|line| line.contains("): 13,") && line.contains("GPC 7, TPC 7"))
        .expect("a sample with a place");
    vec![line.to_owned(); 4]
}

#[test]
fn n6_three_13s_at_one_place_in_a_day_ask_for_diagnostics_and_stay_asked() {
    let policy = load(r#"{"windows":{"13":{"same":"gpc-tpc","count":3,"within_s":86400}}}"#);
    let mut gpu = Gpu::new(&policy, DRIVER);
    for (at, line) in faults().into_iter().enumerate() {
        gpu.see(xid(13, &line));
        gpu.pass(HOUR);
        let repeats = gpu.said.get("XidRepeats");
        assert_eq!(repeats.is_some(), at >= 2, "{at}: {repeats:?}");
    }
    let verdict = &gpu.said["XidRepeats"];
    assert_eq!(
        (verdict.severity, verdict.action),
        (Severity::Warning, Action::RunDcgmEud)
    );
    assert!(
        verdict.message.contains("GPC 7, TPC 7"),
        "{}",
        verdict.message
    );
}

#[test]
fn h3_warm_and_fresh_instances_count_alike() {
    let config = r#"{"profile":"gke","windows":{"13":{"same":"gpc-tpc"},"94":{"count":2,"severity":"fatal"}}}"#;
    let run = |calls: u64| {
        let policy = try_load(config, calls).unwrap();
        let mut gpu = Gpu::new(&policy, DRIVER);
        let mut seen = Vec::new();
        for line in faults() {
            for code in [13, 94, 31, 48] {
                gpu.see(xid(code, &line));
                seen.push((gpu.said.clone(), gpu.state.clone()));
            }
            gpu.pass(HOUR);
        }
        seen
    };
    let (warm, fresh) = (run(1000), run(1));
    assert_eq!(warm, fresh);
    let (said, state) = warm.last().unwrap();
    assert_eq!(said["XidRepeats"].severity, Severity::Fatal);
    assert!(
        state.keys().any(|key| key.starts_with("window/")),
        "{state:?}"
    );
    let bytes: usize = state.values().map(Vec::len).sum();
    assert!(bytes < 8 * 1024, "{bytes}");
}
