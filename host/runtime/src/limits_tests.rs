use device_api_core::limits as fixed;

use super::*;

/// Set to anything, the test writes the file instead of comparing it.
const WRITE: &str = "WRITE_DOCS";

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md");

const INTRODUCTION: &str = "\
# Limits

Every bound of the daemon, from the tables in the code; a test keeps this page equal to them
(`WRITE_DOCS=1 cargo test -p device-api-runtime limits` writes it anew).

## What a site may set

By `--limit NAME=VALUE`, which may be given more than once; in the environment
`DEVICE_API_LIMIT=gpus=2048,watches=8192`; in the file a mapping:

```yaml
limits:
  gpus: 2048
  request-time: 10s
```

Past one of them a call is refused with `ResourceExhausted`, or after `request-time` with
`DeadlineExceeded`; the message names the limit.

| name | default | range | what |
| --- | --- | --- | --- |
";

const POLICY: &str = "
## What a policy may use

In policies.yaml, under `limits` of a policy ([policies.md](policies.md#policiesyaml)); none can be switched off.
`call-deadline` and `memory-bytes-max` have flags for all policies together, `--policy-deadline` and `--policy-memory`;
a deadline is half of `barrier-wait` at most.

| name | default | range | what |
| --- | --- | --- | --- |
";

const CONTRACT: &str = "
## What is the same everywhere

Part of the contract; past one of them a request is refused with `InvalidArgument`, which names the
field, unless the row says otherwise.

| what | bound |
| --- | --- |
";

const CONNECTIONS: &str = "
## Connections

What a connection may take up before it has proven anything, and what a client may hold on to.

| what | bound |
| --- | --- |
";

#[expect(clippy::too_many_lines, reason = "one row for each limit")]
fn contract() -> Vec<(&'static str, String)> {
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    vec![
        (
            "object name, namespace, condition type, label key",
            format!("{} bytes", fixed::NAME_BYTES_MAX),
        ),
        ("reason", format!("{} bytes", fixed::REASON_BYTES_MAX)),
        (
            "message of a condition; a longer one is cut",
            format!("{} bytes", fixed::MESSAGE_BYTES_MAX),
        ),
        (
            "one piece of evidence; a longer one is cut",
            format!("{} bytes", fixed::EVIDENCE_BYTES_MAX),
        ),
        (
            "pieces of evidence kept with a condition",
            fixed::EVIDENCE_PER_CONDITION_MAX.to_string(),
        ),
        ("labels of a GPU", fixed::LABELS_MAX.to_string()),
        (
            "value of a label",
            format!("{} bytes", fixed::LABEL_VALUE_BYTES_MAX),
        ),
        (
            "selector as text",
            format!("{} bytes", fixed::SELECTOR_BYTES_MAX),
        ),
        (
            "requirements in a selector",
            fixed::SELECTOR_TERMS_MAX.to_string(),
        ),
        (
            "values in one requirement of a selector",
            fixed::SELECTOR_VALUES_MAX.to_string(),
        ),
        (
            "lease of a provider",
            format!(
                "{} to {}",
                seconds(fixed::LEASE_MIN),
                seconds(fixed::LEASE_MAX)
            ),
        ),
        (
            "path of a Unix socket; the daemon does not start with a longer one",
            format!("{} bytes", fixed::SOCKET_PATH_BYTES_MAX),
        ),
        (
            "distinct signals of a GPU that wait to be judged; past it the fallback is applied at once",
            fixed::SIGNALS_PENDING_PER_GPU_MAX.to_string(),
        ),
        (
            "signals handed to a policy in one call",
            fixed::SIGNALS_PER_CALL_MAX.to_string(),
        ),
        (
            "faults of a GPU that stand without a verdict",
            fixed::FALLBACKS_PER_GPU_MAX.to_string(),
        ),
        (
            "signals of a GPU that one policy is asked about again",
            fixed::FAILED_PER_POLICY_MAX.to_string(),
        ),
        (
            "lines of the log in a minute about each of: the health of a GPU, codes that are in no catalogue, GPUs that are not known yet",
            fixed::LOG_LINES_MAX.to_string(),
        ),
        (
            "observations kept while nobody knows their device",
            fixed::UNATTRIBUTED_MAX.to_string(),
        ),
        (
            "different errors of NVSwitches kept while nobody knows which GPUs are behind them",
            fixed::SXIDS_HELD_MAX.to_string(),
        ),
        (
            "open incidents; past it the longest quiet one ends",
            fixed::INCIDENTS_MAX.to_string(),
        ),
        (
            "closed incidents that are kept",
            fixed::INCIDENTS_CLOSED_MAX.to_string(),
        ),
        (
            "incidents in one answer; read on with `before`",
            fixed::INCIDENTS_LISTED_MAX.to_string(),
        ),
        (
            "time for which the driver is let go of",
            seconds(fixed::RELEASE_MAX),
        ),
        (
            "time for which an operator sets the log; length of the filter",
            format!(
                "{}, {} bytes",
                seconds(fixed::LOG_FILTER_TTL_MAX),
                fixed::LOG_FILTER_BYTES_MAX
            ),
        ),
        (
            "wait of an attach until NVML is in use; with a small `request-time`, three quarters of that",
            seconds(fixed::ATTACH_WAIT_MAX),
        ),
        ("policies loaded at once", fixed::POLICIES_MAX.to_string()),
        (
            "components of a policy directory together; one past it is refused by name",
            format!("{} bytes", fixed::POLICY_SET_BYTES_MAX),
        ),
        (
            "entries of a policy directory; with more the set is refused",
            fixed::POLICY_DIRECTORY_ENTRIES_MAX.to_string(),
        ),
        (
            "size of policies.yaml; its values, those that anchors repeat included; its levels",
            format!(
                "{} bytes, {}, {}",
                fixed::POLICIES_FILE_BYTES_MAX,
                fixed::POLICIES_FILE_VALUES_MAX,
                fixed::POLICIES_FILE_DEPTH_MAX
            ),
        ),
        (
            "timers of one policy for one GPU",
            fixed::WAKES_PER_POLICY_MAX.to_string(),
        ),
        (
            "state of one policy for one GPU",
            format!(
                "{} keys, {} bytes",
                fixed::STATE_KEYS_MAX,
                fixed::STATE_BYTES_MAX
            ),
        ),
        (
            "verdicts in one decision",
            fixed::VERDICTS_PER_DECISION_MAX.to_string(),
        ),
        (
            "ways out of one problem",
            fixed::CLEARS_PER_VERDICT_MAX.to_string(),
        ),
        (
            "condition types that a policy declares",
            fixed::OWNED_TYPES_MAX.to_string(),
        ),
        (
            "reasons of one declared type",
            fixed::REASONS_PER_TYPE_MAX.to_string(),
        ),
        (
            "subscriptions of a policy",
            fixed::SUBSCRIPTIONS_MAX.to_string(),
        ),
    ]
}

fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    for row in TABLE {
        let default = row.show(row.default());
        text += &format!(
            "| `{}` | {default} | {} | {} |\n",
            row.name,
            row.range(),
            row.what
        );
    }
    text += POLICY;
    for row in device_api_policy::GuestLimits::rows() {
        let (name, value, range) = (row.name(), row.default_value(), row.range());
        text += &format!("| `{name}` | {value} | {range} | {} |\n", row.what());
    }
    text += CONTRACT;
    for (what, bound) in contract() {
        text += &format!("| {what} | {bound} |\n");
    }
    text += CONNECTIONS;
    for (what, bound) in device_api_grpc::fixed_limits() {
        text += &format!("| {what} | {bound} |\n");
    }
    text
}

#[test]
fn the_page_of_limits_is_the_table() {
    let expected = markdown();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(DOCS, &expected).expect("written");
    }
    let page = std::fs::read_to_string(DOCS).expect("docs/limits.md");
    assert!(
        page == expected,
        "docs/limits.md is stale: {WRITE}=1 writes it anew"
    );
}

#[test]
fn each_default_is_in_its_range_and_is_read_as_it_is_shown() {
    for row in TABLE {
        for value in [row.min, row.default(), row.max] {
            let text = format!("{}={}", row.name, row.show(value));
            let setting = parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(setting.value, value, "{text}");
            let mut bounds = Bounds::default();
            (row.set)(&mut bounds, value);
            assert_eq!((row.get)(&bounds), value, "{text}");
        }
    }
}

#[test]
fn no_row_sets_what_another_sets() {
    for row in TABLE {
        let mut bounds = Bounds::default();
        (row.set)(&mut bounds, row.max);
        for other in TABLE.iter().filter(|other| other.name != row.name) {
            assert_eq!(
                (other.get)(&bounds),
                other.default(),
                "{} {}",
                row.name,
                other.name
            );
        }
    }
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let why = parse(text).expect_err("refused");
    assert!(
        words.iter().all(|word| why.contains(word)),
        "{why:?} lacks one of {words:?}"
    );
}

#[test]
fn what_is_no_limit_is_refused_with_what_there_is() {
    refused("gpus", &["NAME=VALUE"]);
    refused("gpu=1", &["\"gpu\"", "gpus", "watches-per-connection"]);
    refused("gpus=many", &["gpus", "whole number"]);
    refused("gpus=-1", &["gpus", "whole number"]);
    refused("gpus=0", &["gpus is 0", "1 to 16384"]);
    refused("request-time=30", &["request-time", "as in 10s"]);
    refused("barrier-wait=1ms", &["barrier-wait is 1ms", "10ms to 1s"]);
    refused(
        "receive-bytes=1GiB",
        &["receive-bytes is 1024MiB", "64KiB to 64MiB"],
    );
}

#[test]
fn settings_are_set_once_and_go_together() {
    let read = |texts: &[&str]| {
        let settings: Vec<_> = texts
            .iter()
            .map(|text| parse(text).expect("read"))
            .collect();
        bounds(&settings)
    };
    let expected = Bounds {
        gpus: 7,
        request_time: Duration::from_secs(5),
        ..Bounds::default()
    };
    assert_eq!(read(&["gpus=7", "request-time=5s"]), Ok(expected));
    assert_eq!(
        read(&["gpus=7", "gpus=7"]),
        Err(LimitError::Twice { name: "gpus" })
    );
    assert_eq!(
        read(&["streams-per-connection=200"]),
        Err(LimitError::NoStreamLeft {
            watches: 200,
            streams: 200
        })
    );
    read(&["streams-per-connection=201"]).expect("one stream is left");
}

#[test]
fn what_there_may_be_can_be_sent() {
    let read = |texts: &[&str]| {
        let settings: Vec<_> = texts
            .iter()
            .map(|text| parse(text).expect("read"))
            .collect();
        bounds(&settings)
    };
    let small = ["send-bytes=512KiB", "condition-bytes=256KiB"];
    let (send, min) = (512 * 1024, 64 * 10 * 1024);
    let conditions = 64;
    assert_eq!(
        read(&small),
        Err(LimitError::GpuTooLarge {
            send,
            min,
            conditions
        })
    );
    read(&[small[0], small[1], "conditions-per-gpu=32"]).expect("a GPU fits");
    assert_eq!(
        read(&["send-bytes=8MiB"]),
        Err(LimitError::ListTooLarge {
            texts: 8 << 20,
            send: 8 << 20
        })
    );
    read(&["send-bytes=8MiB", "condition-bytes=4MiB"]).expect("a list fits");
    read(&["conditions-per-gpu=1024"]).expect("the most, with the default");
}

#[test]
fn help_lists_them_all() {
    let help = help();
    for row in TABLE {
        assert!(help.contains(&format!("- {} (", row.name)), "{}", row.name);
    }
}
