//! docs/comparison.md: where each profile agrees with the vendor's catalogue, and where not.

use std::collections::BTreeMap;

use device_api_core::verdict::{Severity, Verdict};
use device_api_core::xid::{Entry, catalog};
use device_api_core::{floor, xid as codes};

use crate::asked::{DRIVER, alone, health, profile, xid};
use crate::pages::{COMMAND, runs};
use crate::profiles::{Listed, NAMES};

const INTRODUCTION: &str = "\
# How others judge, beside the vendor's catalogue

Each profile of `xid-policy` is asked about every code of the catalogue, alone and without a text, as is the
vendor's; what differs is counted and listed. Nothing here is written by hand but what stands in the head of
`data/xid-profiles/*.csv`, which names the source and commit of each list. How to set one: [xid-policy.md](xid-policy.md).

The profile is what that system *says of the XID*. Under every profile the host's floor stays: ";

pub(crate) fn page() -> String {
    let vendor = answers("vendor");
    let mut text = INTRODUCTION.to_owned();
    let floors: Vec<u64> = catalog()
        .iter()
        .map(|entry| entry.code)
        .filter(|code| *code == floor::XID_DOUBLE_BIT || floor::of(&xid(*code, "")).is_some())
        .collect();
    text += &format!(
        "XIDs {}\nand the driver's recovery action keep a GPU from being Healthy whatever a profile says ([policies.md]\
         (policies.md#the-floor)).\n\nGenerated; {COMMAND} writes it anew.\n\n## In short\n\n{}",
        runs(&floors),
        summary(&vendor)
    );
    for name in &NAMES[1..] {
        text += &section(name, &vendor);
    }
    text
}

/// What a profile says of each code.
fn answers(name: &str) -> BTreeMap<u64, Verdict> {
    let policy = profile(name);
    let answer = |entry: &Entry| (entry.code, alone(&policy, DRIVER, xid(entry.code, "")));
    catalog().iter().map(answer).collect()
}

fn summary(vendor: &BTreeMap<u64, Verdict>) -> String {
    let mut text = "\
| profile | same health | same health and action | harsher | milder | Unhealthy on an application's fault | not Unhealthy where a reset or restart is due |
| --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let all = vendor.len();
    let is = |word: &[&str], code: u64| {
        codes::lookup(code)
            .is_some_and(|entry| word.contains(&entry.immediate) && entry.name != "Unused")
    };
    for name in &NAMES[1..] {
        let theirs = answers(name);
        let count = |test: &dyn Fn(u64, &Verdict, &Verdict) -> bool| {
            let pairs = vendor.iter().zip(theirs.values());
            pairs
                .filter(|((code, ours), theirs)| test(**code, ours, theirs))
                .count()
        };
        let application = |code: u64| is(&["RESTART_APP", "IGNORE"], code);
        let restart = |code: u64| is(&["RESET_GPU", "RESTART_BM", "RESTART_VM"], code);
        text += &format!(
            "| [{name}](#{name}) | {} of {all} | {} | {} | {} | {} of {} | {} of {} |\n",
            count(&|_, ours, theirs| ours.severity == theirs.severity),
            count(
                &|_, ours, theirs| (ours.severity, ours.action) == (theirs.severity, theirs.action)
            ),
            count(&|_, ours, theirs| theirs.severity > ours.severity),
            count(&|_, ours, theirs| theirs.severity < ours.severity),
            count(&|code, _, theirs| application(code) && theirs.severity == Severity::Fatal),
            count(&|code, _, _| application(code)),
            count(&|code, _, theirs| restart(code) && theirs.severity != Severity::Fatal),
            count(&|code, _, _| restart(code)),
        );
    }
    text + "\nHarsher and milder are of the health alone. Where a system advises no action the vendor's is told, so that\n\
            the second column flatters it. An application's fault is `RESTART_APP` or `IGNORE` in the catalogue; due is\n\
            `RESET_GPU`, `RESTART_BM` or `RESTART_VM`; codes that the vendor no longer uses are left out of these two columns.\n"
}

fn section(name: &str, vendor: &BTreeMap<u64, Verdict>) -> String {
    let (theirs, listed) = (answers(name), Listed::read(name));
    let head = |key: &str| listed.head.get(key).cloned().unwrap_or_default();
    let mut text = format!(
        "\n## {name}\n\n{}, {}: {}.\n\n| vendor | Healthy here | Degraded here | Unhealthy here |\n| --- | --- | --- | --- |\n",
        head("system"),
        head("version"),
        head("source")
    );
    let all = [Severity::Info, Severity::Warning, Severity::Fatal];
    for severity in all {
        let here = all.map(|other| {
            let pairs = vendor.values().zip(theirs.values());
            pairs
                .filter(|(ours, theirs)| ours.severity == severity && theirs.severity == other)
                .count()
                .to_string()
        });
        text += &format!("| {} | {} |\n", health(severity), here.join(" | "));
    }
    text + &differences(vendor, &theirs, &listed)
}

/// The codes of which health differs, those with the same two answers on one line.
fn differences(
    vendor: &BTreeMap<u64, Verdict>,
    theirs: &BTreeMap<u64, Verdict>,
    listed: &Listed,
) -> String {
    let mut alike: BTreeMap<(Severity, Severity, String, String), Vec<u64>> = BTreeMap::new();
    for (entry, (ours, theirs)) in catalog()
        .iter()
        .zip(vendor.values().zip(theirs.values()))
        .filter(|(_, (ours, theirs))| ours.severity != theirs.severity)
    {
        let immediate = match entry.immediate {
            "" => "no action published",
            word => word,
        };
        let said = format!("{immediate}: {}", told(ours));
        let row = listed.of(entry.code, false);
        // A word that names its own code would keep like codes apart.
        let word = row.word.replace(&entry.code.to_string(), "N");
        let here = format!("{word}: {}", told(theirs));
        let key = (ours.severity, theirs.severity, said, here);
        alike.entry(key).or_default().push(entry.code);
    }
    let codes: usize = alike.values().map(Vec::len).sum();
    let mut text = format!(
        "\nOf {codes} codes the health differs:\n\n| XIDs | the vendor's catalogue | here |\n| --- | --- | --- |\n"
    );
    for ((_, _, ours, theirs), codes) in alike {
        text += &format!("| {} | {ours} | {theirs} |\n", runs(&codes));
    }
    text
}

fn told(verdict: &Verdict) -> String {
    format!(
        "{}, `{}`",
        health(verdict.severity),
        verdict.action.as_str()
    )
}
