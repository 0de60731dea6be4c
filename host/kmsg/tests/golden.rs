//! Every sample line and what is read from it: `tests/golden.txt`, one rendering per line of
//! `data/xid-kmsg-samples.tsv`, checked by hand against the line (design N4).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::fmt::Write;

use device_api_kmsg::{Parsed, Xid, parse_line};

const SAMPLES: &str = include_str!("../../../data/xid-kmsg-samples.tsv");
const GOLDEN: &str = include_str!("golden.txt");

fn samples() -> impl Iterator<Item = &'static str> {
    SAMPLES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('\t').unwrap().1)
}

fn render(parsed: Option<&Parsed>) -> String {
    match parsed {
        None => "not the driver's".to_owned(),
        Some(Parsed::Xid(xid)) => render_xid(xid),
        Some(Parsed::Sxid(sxid)) => {
            let fatal = if sxid.fatal { "fatal" } else { "non-fatal" };
            format!(
                "sxid {} {} {} {fatal} link={:?}",
                sxid.code,
                sxid.pci,
                sxid.switch,
                sxid.link.unwrap()
            )
        }
        Some(Parsed::SxidDetail) => "sxid detail".to_owned(),
        Some(Parsed::Lost(lost)) => format!("lost {}", lost.pci),
        Some(Parsed::LostBegin(lost)) => format!("lost-begin {}", lost.pci),
        Some(Parsed::LostEnd { .. }) => "lost-end".to_owned(),
        Some(Parsed::Identity(identity)) => format!("identity {} {}", identity.pci, identity.uuid),
        Some(Parsed::Unparsed) => "UNPARSED".to_owned(),
        Some(Parsed::Other) => "other".to_owned(),
    }
}

fn render_xid(xid: &Xid) -> String {
    let mut out = format!("xid {} {}", xid.code, xid.pci);
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(out, " {key}={value}").unwrap();
        }
    };
    add("instance", xid.instance.clone());
    add("pid", xid.pid.map(|pid| pid.to_string()));
    add("process", xid.process.clone());
    add("caused-by", xid.caused_by.map(|code| code.to_string()));
    add(
        "recovery",
        xid.recovery
            .map(|change| format!("{}->{}", change.previous, change.action)),
    );
    add(
        "unit",
        xid.nvlink.as_ref().map(|nvlink| nvlink.unit.clone()),
    );
    add(
        "severity",
        xid.nvlink
            .as_ref()
            .map(|n| if n.fatal { "fatal" } else { "non-fatal" }.to_owned()),
    );
    add(
        "link",
        xid.nvlink.as_ref().map(|nvlink| nvlink.link.to_string()),
    );
    add(
        "intr-info",
        xid.nvlink
            .as_ref()
            .map(|n| format!("{:#x}", n.intr_info.unwrap())),
    );
    add(
        "error-status",
        xid.nvlink
            .as_ref()
            .map(|n| format!("{:#x}", n.error_status.unwrap())),
    );
    if xid.injected {
        out.push_str(" injected");
    }
    out
}

#[test]
fn n4_every_sample_is_read_as_a_person_reads_it() {
    let read: Vec<String> = samples()
        .map(|line| render(parse_line(line).as_ref()))
        .collect();
    let golden: Vec<&str> = GOLDEN.lines().collect();
    for (at, (line, (read, golden))) in samples().zip(read.iter().zip(&golden)).enumerate() {
        assert_eq!(read, golden, "sample {at}: {line}");
    }
    assert_eq!(
        read.len(),
        golden.len(),
        "one rendering per sample:\n{}",
        read.join("\n")
    );
}

#[test]
fn n4_every_sample_reads_the_same_from_dev_kmsg() {
    for line in samples() {
        let from = line.find("NVRM:").or_else(|| line.find("nvidia-nvswitch"));
        let Some(message) = from.map(|at| &line[at..]) else {
            continue;
        };
        let raw = format!("4,77,430954509105,-;{message}\n SUBSYSTEM=pci");
        assert_eq!(parse_line(&raw), parse_line(line), "{line}");
    }
}

#[test]
fn the_evidence_is_the_line_from_its_tag_on() {
    for line in samples() {
        if let Some(Parsed::Xid(xid)) = parse_line(line) {
            assert!(
                xid.evidence.starts_with("NVRM: Xid (") && line.ends_with(&xid.evidence),
                "{line}"
            );
        }
    }
}
