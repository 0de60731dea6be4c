//! The generated pages: written anew where `WRITE_DOCS` is set, else compared.

use device_api_core::verdict::{ClearOn, Verdict};

use crate::{comparison, xids};

/// Set to anything, the test writes the pages.
const WRITE: &str = "WRITE_DOCS";

/// How a reader of a page makes it anew.
pub(crate) const COMMAND: &str =
    "`WRITE_DOCS=1 cargo test -p device-api-policy --test catalogue pages`";

#[track_caller]
fn check(name: &str, expected: &str) {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, expected).expect("written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == expected,
        "docs/{name} is stale: {COMMAND} writes it anew"
    );
}

#[test]
fn pages_xids_is_what_the_policy_says() {
    check("xids.md", &xids::page());
}

#[test]
fn pages_comparison_is_what_the_policy_says() {
    check("comparison.md", &comparison::page());
}

/// What a problem waits for, in words.
pub(crate) fn clears(verdict: &Verdict) -> String {
    let words: Vec<String> = verdict
        .clears
        .iter()
        .map(|clear| match clear.on {
            ClearOn::GpuReset => "GPU reset".to_owned(),
            ClearOn::DriverRebind => "driver rebind".to_owned(),
            ClearOn::NodeReboot => "node reboot".to_owned(),
            ClearOn::Replacement => "another GPU in the slot".to_owned(),
            ClearOn::RecoveryNone => "recovery action back to none".to_owned(),
            ClearOn::Quiet => format!("{} without another", duration(clear.after.as_secs())),
            ClearOn::Policy => "the policy itself".to_owned(),
            ClearOn::Operator => "by hand".to_owned(),
        })
        .collect();
    words.join(", ")
}

fn duration(seconds: u64) -> String {
    match seconds {
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// What the message says after it has named the code.
pub(crate) fn why(code: u64, verdict: &Verdict) -> String {
    let message = verdict.message.trim_end_matches('.');
    let Some(rest) = message.strip_prefix(&format!("XID {code}")) else {
        return message.to_owned();
    };
    let said = match rest.strip_prefix(" (") {
        Some(named) => named.split_once("): ").map(|(_, said)| said),
        None => rest.strip_prefix(": "),
    };
    said.unwrap_or(rest).to_owned()
}

/// `1–7, 9, 10`: ascending codes, runs of three and more drawn together.
pub(crate) fn runs(codes: &[u64]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(first) = codes.get(at).copied() {
        let run = codes[at..]
            .iter()
            .zip(first..)
            .take_while(|(code, expected)| **code == *expected)
            .count();
        let last = codes[at + run - 1];
        match run {
            1 => out.push(first.to_string()),
            2 => out.extend([first.to_string(), last.to_string()]),
            _ => out.push(format!("{first}–{last}")),
        }
        at += run;
    }
    out.join(", ")
}

/// The vendor's name of a code as the policy has it, or what it is known by.
pub(crate) fn name(entry: &device_api_core::xid::Entry) -> String {
    let name = if entry.name.is_empty() {
        entry.mnemonic
    } else {
        entry.name
    };
    let name = name.split(" -- ").next().unwrap_or(name);
    match name.replace(" / ", " ").replace('|', "/") {
        name if name.is_empty() => "—".to_owned(),
        name => name,
    }
}

#[test]
fn runs_are_drawn_together() {
    assert_eq!(runs(&[1, 2, 3, 5, 6, 9]), "1–3, 5, 6, 9");
    assert_eq!(runs(&[]), "");
}
