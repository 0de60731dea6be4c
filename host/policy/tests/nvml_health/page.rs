//! docs/nvml-health.md: written anew where `WRITE_DOCS` is set, else compared.

use device_api_core::verdict::{ClearOn, Judgement, Severity, Verdict};

use crate::settings::{REFUSED, refusal, schema, table};
use crate::stories::{Story, all};

/// Set to anything, the test writes the page.
const WRITE: &str = "WRITE_DOCS";

const INTRODUCTION: &str = "\
# Setting nvml-health

What the bundled `nvml-health` makes of NVML's [readings](readings.md), and of a GPU that is lost or found. Generated;
`WRITE_DOCS=1 cargo test -p device-api-policy --test nvml_health page` writes it anew: each row was asked of the very
component that the daemon carries, its beginning and its end.

- Thresholds are **the device's** where NVML tells one; else the configuration's. Where neither has one, there is no
  condition. The few defaults are the vendor's own, and named below.
- What a device does not tell is not judged: absent is neither well nor a problem. Nor is anything while NVML does not
  answer for the GPU; once it does, all is judged anew.
- What stands by a reading is taken back by that reading alone. One that fails, or is no longer there, ends nothing and
  hides nothing worse; nor does a wait end meanwhile.
- Temperatures are judged to a degree: heat begins at the threshold and ends `hysteresis_c` below it, however slowly it
  comes and goes. What is between the two is no signal.
- **Health**: Unhealthy, nothing may run; Degraded, it works and needs care; Healthy, it is shown and no fault of the GPU's;
  Unknown, nobody can tell.
- **Clears**: any one of these, as in [clears.md](clears.md). *A healthy reading* is the policy's own word. *By hand* is
  `devicectl gpu clear GPU CONDITION --reason …`; what still is so comes back with the next reading of it.
- A condition that flaps for all its hysteresis is [held](clears.md#flapping) by the host.
- An XID is `xid-policy`'s: [xids.md](xids.md).
";

const COUNTERS: &str = "
## Counters that are zeroed

`nvidia-smi --reset-ecc-errors` zeroes the volatile ECC counters, and heals nothing. So does a driver that is loaded. A
counter that falls is therefore no fault, and ends none: `EccErrors` waits for a reset of the GPU, which the host tells by
[more than that](clears.md#what-a-gpu-reset-is-told-by). What is counted after it counts anew. Where a GPU was reset while
nobody looked (the daemon was stopped), clear it by hand.

A rate looks at how much a counter has risen in its window; a window is up to a sixteenth longer than it says, so that no
storm of errors needs more room than a trickle. Once it was too much the condition stands until it has not been so for
`quiet_s`. What was cleared counts from the start.
";

const DEFAULTS: &str = "
The defaults of `rates` and `retired_pages_max` are those of NVIDIA's own monitor, DCGM (`dcgm_gpu_hardware_limits`):
`pcie.replays` 9 in 60 s (\"8 replays per minute is the maximum recommended\"), `nvlink.crc-flit-errors` and
`nvlink.crc-data-errors` 6000 in 60 s (\"only matter at rates of 100+ per second\"), 63 retired pages. For corrected ECC
errors it has none that it stands by, and so have we none. Settling times are ours.

```yaml
policies:
  - name: nvml-health
    config:
      throttle_quiet_s: 60
      power_limit_min_w: 600
      disabled: [NvLink]
      rates:
        ecc.volatile.corrected: {count: 1000, within_s: 86400, quiet_s: 86400, severity: info, action: NONE}
        pcie.replays: {count: 0}
```
";

fn health(verdict: &Verdict) -> &'static str {
    match (verdict.state, verdict.severity) {
        (Judgement::Unknown, _) => "Unknown",
        (_, Severity::Info) => "Healthy",
        (_, Severity::Warning) => "Degraded",
        (_, Severity::Fatal) => "Unhealthy",
    }
}

fn clears(verdict: &Verdict) -> String {
    if verdict.state == Judgement::Unknown {
        return "a healthy reading".to_owned();
    }
    let words: Vec<&str> = verdict
        .clears
        .iter()
        .map(|clear| match clear.on {
            ClearOn::GpuReset => "GPU reset",
            ClearOn::DriverRebind => "driver rebind",
            ClearOn::NodeReboot => "node reboot",
            ClearOn::Replacement => "another GPU in the slot",
            ClearOn::RecoveryNone => "recovery action back to none",
            ClearOn::Quiet => "a quiet time",
            ClearOn::Policy => "a healthy reading",
            ClearOn::Operator => "by hand",
        })
        .collect();
    words.join(", ")
}

fn row(story: &Story) -> String {
    let verdict = story.play();
    format!(
        "| `{}` | `{}` | {} | {} | {} | {} | `{}` | {} |\n",
        story.condition,
        story.reason,
        story.readings,
        story.when,
        story.threshold,
        health(&verdict),
        verdict.action.as_str(),
        clears(&verdict)
    )
}

fn page() -> String {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## What it says\n\n\
        | condition | reason | readings | when | threshold of | health | action | clears |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    text.extend(all().iter().map(row));
    text += COUNTERS;
    text += "\n## Settings\n\nUnder `config` of its entry in [policies.yaml](policies.md#policiesyaml); an editor that knows \
        JSON Schema\nchecks it against [schemas/nvml-health.schema.json](schemas/nvml-health.schema.json).\n\n";
    let schema = schema();
    text += &table(&schema["properties"]);
    text += "\nOf each counter in `rates`:\n\n";
    text += &table(&schema["$defs"]["rate"]["properties"]);
    text += DEFAULTS;
    text += "\nA wrong word refuses the whole configuration, and the one before goes on:\n\n```refused\n";
    text.extend(
        REFUSED
            .iter()
            .map(|config| format!("{config} -> {}\n", refusal(config))),
    );
    text + "```\n"
}

#[test]
fn page_is_what_the_policy_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/nvml-health.md");
    let expected = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, &expected).expect("written");
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == expected,
        "docs/nvml-health.md is stale: `WRITE_DOCS=1 cargo test -p device-api-policy --test nvml_health page` writes it anew"
    );
}

/// The page's example is one that the component takes.
#[test]
fn the_pages_example_is_taken() {
    let (_, example) = DEFAULTS.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let manifest: serde_json::Value = serde_saphyr::from_str(example).unwrap();
    let config = &manifest["policies"][0]["config"];
    assert!(config["rates"].is_object(), "{manifest}");
    crate::bench::load(&config.to_string());
}
