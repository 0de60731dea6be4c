//! What lines say to observations: joins the messages that span several lines.

use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};

use crate::parsed::{Lost, Parsed, Sxid, Xid};

/// Messages of the driver that may stand between the first and the third line of a lost GPU. They
/// are printed at one go; other CPUs' messages get in between.
const LOST_MESSAGES_BETWEEN_MAX: u32 = 8;

/// Turns parsed lines, in their order, into observations.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// A GPU named by a first line, and how many more messages may pass before the third.
    begun: Option<(Lost, u32)>,
}

/// What a line came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Observed(Observation),
    /// A third line without its first: some GPU is lost, and nobody knows which.
    Orphan,
    Nothing,
}

impl Assembler {
    pub(crate) fn take(&mut self, parsed: Parsed) -> Outcome {
        match parsed {
            Parsed::LostBegin(lost) => {
                self.begun = Some((lost, LOST_MESSAGES_BETWEEN_MAX));
                Outcome::Nothing
            }
            Parsed::LostEnd { evidence } => match self.begun.take() {
                Some((mut begun, _)) => {
                    begun.evidence = format!("{} {evidence}", begun.evidence);
                    Outcome::Observed(lost(begun))
                }
                None => Outcome::Orphan,
            },
            Parsed::Xid(found) => {
                self.pass();
                Outcome::Observed(xid(found))
            }
            Parsed::Sxid(found) => {
                self.pass();
                Outcome::Observed(sxid(found))
            }
            Parsed::Lost(found) => {
                self.pass();
                Outcome::Observed(lost(found))
            }
            Parsed::SxidDetail | Parsed::Identity(_) | Parsed::Unparsed | Parsed::Other => {
                self.pass();
                Outcome::Nothing
            }
        }
    }

    /// Whether a message was begun that may still be completed.
    pub(crate) fn is_within(&self) -> bool {
        self.begun.is_some()
    }

    fn pass(&mut self) {
        self.begun = self
            .begun
            .take()
            .and_then(|(lost, left)| Some((lost, left.checked_sub(1)?)));
    }
}

fn xid(xid: Xid) -> Observation {
    let mut attrs = Vec::new();
    attrs.extend(xid.pid.map(|pid| Attr::int("pid", i64::from(pid))));
    attrs.extend(xid.process.map(|process| Attr::text("process", process)));
    if let Some(recovery) = xid.recovery {
        attrs.push(Attr::int("action", i64::from(recovery.action)));
        attrs.push(Attr::int("previous", i64::from(recovery.previous)));
    }
    if let Some(nvlink) = xid.nvlink {
        attrs.push(Attr::text("unit", nvlink.unit));
        attrs.push(severity(nvlink.fatal));
        attrs.push(Attr::int("link", nvlink.link));
        attrs.extend(
            nvlink
                .intr_info
                .map(|word| Attr::int("intr-info", i64::from(word))),
        );
        attrs.extend(
            nvlink
                .error_status
                .map(|word| Attr::int("error-status", i64::from(word))),
        );
    }
    Observation {
        code: Some(xid.code),
        drill: xid.injected,
        instance: xid.instance,
        caused_by: xid.caused_by,
        evidence: xid.evidence,
        attrs,
        ..Observation::new(SignalKind::Xid, Target::Pci(xid.pci), Source::Kmsg)
    }
}

fn sxid(sxid: Sxid) -> Observation {
    let mut attrs = vec![Attr::text("switch", sxid.switch), severity(sxid.fatal)];
    attrs.extend(sxid.link.map(|link| Attr::int("link", link)));
    Observation {
        code: Some(sxid.code),
        drill: sxid.injected,
        evidence: sxid.evidence,
        attrs,
        ..Observation::new(SignalKind::Sxid, Target::Pci(sxid.pci), Source::Kmsg)
    }
}

fn lost(lost: Lost) -> Observation {
    Observation {
        drill: lost.injected,
        evidence: lost.evidence,
        ..Observation::new(SignalKind::GpuLost, Target::Pci(lost.pci), Source::Kmsg)
    }
}

fn severity(fatal: bool) -> Attr {
    Attr::text("severity", if fatal { "fatal" } else { "non-fatal" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_line;

    const BEGIN: &str = "[ 1843.308145] NVRM: The NVIDIA GPU 0000:b3:00.0";
    const MIDDLE: &str = "NVRM: (PCI ID: 10de:26b5) installed in this system has";
    const END: &str = "NVRM: fallen off the bus and is not responding to commands.";

    fn take(lines: &[&str]) -> Vec<Outcome> {
        let mut assembler = Assembler::default();
        lines
            .iter()
            .filter_map(|line| parse_line(line))
            .map(|parsed| assembler.take(parsed))
            .collect()
    }

    #[test]
    fn n4_three_lines_make_one_lost_gpu() {
        let outcomes = take(&[BEGIN, MIDDLE, END, END]);
        match outcomes.as_slice() {
            [
                Outcome::Nothing,
                Outcome::Nothing,
                Outcome::Observed(seen),
                Outcome::Orphan,
            ] => {
                assert_eq!(seen.kind, SignalKind::GpuLost);
                assert_eq!(seen.target.to_string(), "0000:b3:00.0");
                assert_eq!(
                    seen.evidence,
                    "NVRM: The NVIDIA GPU 0000:b3:00.0 NVRM: fallen off the bus and is not responding to commands."
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_first_line_does_not_wait_for_ever() {
        let between = ["NVRM: something else"; LOST_MESSAGES_BETWEEN_MAX as usize + 1];
        let [near, far] = [&between[1..], &between[..]].map(|between| {
            let lines: Vec<&str> = [&[BEGIN][..], between, &[END]].concat();
            take(&lines).pop().unwrap()
        });
        assert!(matches!(near, Outcome::Observed(_)), "{near:?}");
        assert!(matches!(far, Outcome::Orphan), "{far:?}");
    }

    #[test]
    fn n4_attributes_carry_what_the_line_says() {
        let observation = |line: &str| match take(&[line]).pop() {
            Some(Outcome::Observed(observation)) => observation,
            other => panic!("{line}: {other:?}"),
        };
        let seen = observation(
            "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x4 (Drain and Reset) to 0x1 (GPU Reset Required)",
        );
        assert_eq!(seen.code, Some(154));
        assert_eq!(
            seen.attrs,
            [Attr::int("action", 1), Attr::int("previous", 4)]
        );
        let seen = observation(
            "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 28 sourcetrack",
        );
        assert_eq!((seen.kind, seen.code), (SignalKind::Sxid, Some(24007)));
        let expected = [
            Attr::text("switch", "nvidia-nvswitch0"),
            Attr::text("severity", "fatal"),
            Attr::int("link", 28),
        ];
        assert_eq!(seen.attrs, expected);
        let seen = observation(
            "kernel: NVRM: Xid (PCI:0000:dc:00): 45, pid=18, name=python3, Ch 1 caused by previous Xid 149",
        );
        assert_eq!(seen.caused_by, Some(149));
        assert_eq!(
            seen.attrs,
            [Attr::int("pid", 18), Attr::text("process", "python3")]
        );
        assert_eq!(
            seen.evidence,
            "NVRM: Xid (PCI:0000:dc:00): 45, pid=18, name=python3, Ch 1 caused by previous Xid 149"
        );
    }
}
