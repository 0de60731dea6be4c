//! One line of the kernel log to what it says of a GPU. Pure; no input makes it panic.
//!
//! Grammar (driver 595): `NVRM: Xid (PCI:dddd:bb:dd[ GPU-I:ii[ GPU-CI:cc]]): N[, pid=P, name=NAME], MSG[
//! caused by previous Xid M]`. Older drivers leave out `PCI:`, the domain, the pid or the name.
//!
//! NAME is chosen by a process (at most 15 bytes, any of them). So whatever decides something is
//! looked for before it, or from the end of the line.

use device_api_core::ids::{DeviceUuid, PciAddress};

use crate::prefix::{self, NVRM, NVSWITCH};

/// What a line of the driver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Xid(Xid),
    /// The first line of an NVSwitch error: the one that raises.
    Sxid(Sxid),
    /// A further line of the NVSwitch error before (`Severity …`, `Data {…}`).
    SxidDetail,
    /// A GPU fell off the bus, told without an XID.
    Lost(Lost),
    /// The first line of three that may tell of a lost GPU; [`Parsed::LostEnd`] decides.
    LostBegin(Lost),
    /// The third line: whichever GPU was named before is lost.
    LostEnd {
        evidence: String,
    },
    /// Which GPU sits at an address.
    Identity(Identity),
    /// Speaks of an XID or SXid in words that this grammar does not have. Worth a look.
    Unparsed,
    /// Another message of the driver.
    Other,
}

/// An XID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xid {
    pub pci: PciAddress,
    pub code: u64,
    /// MIG instance it is attributed to: `GPU-I:05`, or `GPU-I:05 GPU-CI:00`.
    pub instance: Option<String>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub caused_by: Option<u64>,
    /// Of XID 154.
    pub recovery: Option<Recovery>,
    /// Of XIDs 144 to 150.
    pub nvlink: Option<NvLink>,
    /// Injected: its own mark says so, or a process wrote it (design N8).
    pub injected: bool,
    /// The line from `NVRM:` on.
    pub evidence: String,
}

/// What XID 154 says: the driver's recovery action (an open set, as in NVML field 230).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub previous: u32,
    pub action: u32,
}

/// What XIDs 144 to 150 say: `UNIT Fatal|Nonfatal XCn in Link N (intr-info error-status …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvLink {
    pub unit: String,
    pub fatal: bool,
    /// -1: none in particular.
    pub link: i64,
    pub intr_info: Option<u32>,
    pub error_status: Option<u32>,
}

/// An NVSwitch error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sxid {
    /// Of the switch, which is no GPU.
    pub pci: PciAddress,
    pub code: u64,
    /// As in `nvidia-nvswitch3`.
    pub switch: String,
    pub fatal: bool,
    pub link: Option<i64>,
    pub injected: bool,
    pub evidence: String,
}

/// A GPU that does not answer any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub pci: PciAddress,
    pub injected: bool,
    pub evidence: String,
}

/// Which GPU sits at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pci: PciAddress,
    pub uuid: DeviceUuid,
}

/// Reads one line, in any prefix style. `None`: not a message of the driver.
pub fn parse_line(line: &str) -> Option<Parsed> {
    let stripped = prefix::strip(line)?;
    let message = &*stripped.message;
    let injected = stripped.from_process;
    if message.starts_with(NVSWITCH) {
        return Some(sxid(message, injected));
    }
    let text = message.strip_prefix(NVRM)?.trim_start();
    Some(if let Some(rest) = text.strip_prefix("Xid (") {
        xid(rest, message, injected).map_or(Parsed::Unparsed, Parsed::Xid)
    } else if let Some(rest) = text.strip_prefix("GPU ") {
        gpu(rest, message, injected)
    } else if let Some(rest) = text.strip_prefix("The NVIDIA GPU ") {
        lost_begin(rest, message, injected)
    } else if text.starts_with("fallen off the bus") {
        Parsed::LostEnd {
            evidence: message.to_owned(),
        }
    } else if text.starts_with("Xid") {
        Parsed::Unparsed
    } else {
        Parsed::Other
    })
}

/// From behind `Xid (`.
fn xid(text: &str, message: &str, injected: bool) -> Option<Xid> {
    let (place, rest) = text.split_once("): ")?;
    let mut words = place.split_ascii_whitespace();
    let pci = address(words.next()?)?;
    let instance: Vec<&str> = words
        .filter(|word| word.starts_with("GPU-I:") || word.starts_with("GPU-CI:"))
        .collect();
    // The comma belongs to it: a number at the end of the line may have been cut.
    let (code, rest) = rest.split_once(',')?;
    let code = number(code)?;
    let (pid, process, text) = process(rest.trim_start());
    let nvlink = if (144..=150).contains(&code) {
        nvlink(text)
    } else {
        None
    };
    Some(Xid {
        pci,
        code,
        instance: (!instance.is_empty()).then(|| instance.join(" ")),
        pid,
        process,
        caused_by: caused_by(text),
        recovery: if code == 154 { recovery(text) } else { None },
        injected: injected || nvlink.as_ref().is_some_and(|(_, injected)| *injected),
        nvlink: nvlink.map(|(nvlink, _)| nvlink),
        evidence: message.to_owned(),
    })
}

/// `pid=P, name=NAME, ` where they are; the driver writes `<unknown>` for what it does not know.
fn process(text: &str) -> (Option<u32>, Option<String>, &str) {
    let Some((pid, rest)) = field(text, "pid=") else {
        return (None, None, text);
    };
    let pid = pid.parse().ok();
    let Some((name, rest)) = field(rest, "name=") else {
        return (pid, None, rest);
    };
    let known = !name.is_empty() && name != "<unknown>";
    (pid, known.then(|| name.to_owned()), rest)
}

fn field<'a>(text: &'a str, key: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(key)?.split_once(", ")
}

fn caused_by(text: &str) -> Option<u64> {
    let (_, cause) = text.rsplit_once("caused by previous Xid ")?;
    number(cause.trim_end().trim_end_matches('.'))
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`.
fn recovery(text: &str) -> Option<Recovery> {
    let (_, change) = text.rsplit_once("recovery action changed from ")?;
    let (from, to) = change.split_once(" to ")?;
    Some(Recovery {
        previous: hex(from)?,
        action: hex(to)?,
    })
}

/// The first word of `text` as `0x…`.
fn hex(text: &str) -> Option<u32> {
    let digits = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()?
        .strip_prefix("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

/// `UNIT Fatal|Nonfatal XCn in Link N (…`, and whether it is marked as injected (`i1`).
fn nvlink(text: &str) -> Option<(NvLink, bool)> {
    let (head, tail) = text.rsplit_once(" Link ")?;
    let mut back = head.split_ascii_whitespace().rev();
    let mark = back.next()?.strip_prefix('i')?;
    back.next()?.strip_prefix("XC")?;
    let fatal = back.next()?.eq_ignore_ascii_case("fatal");
    let unit = back.next()?.to_owned();
    let (link, words) = tail.split_once(' ').unwrap_or((tail, ""));
    let mut words = words.trim_start_matches('(').split_ascii_whitespace();
    let link = link.parse().ok()?;
    let (intr_info, error_status) = (words.next().and_then(hex), words.next().and_then(hex));
    Some((
        NvLink {
            unit,
            fatal,
            link,
            intr_info,
            error_status,
        },
        mark != "0",
    ))
}

/// From behind `GPU `: `at PCI:0000:a1:00: GPU-…`, or `[at ]0000:a1:00.0[:] GPU has fallen off the bus.`
fn gpu(text: &str, message: &str, injected: bool) -> Parsed {
    let place = text.strip_prefix("at ").unwrap_or(text);
    let Some((place, rest)) = place.split_once(' ') else {
        return Parsed::Other;
    };
    let Some(pci) = address(place.trim_end_matches(':')) else {
        return Parsed::Other;
    };
    if rest.contains("fallen off the bus") {
        return Parsed::Lost(Lost {
            pci,
            injected,
            evidence: message.to_owned(),
        });
    }
    let uuid = rest.trim_end();
    let well_formed = uuid.starts_with("GPU-")
        && uuid.len() <= UUID_BYTES_MAX
        && uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if well_formed {
        Parsed::Identity(Identity {
            pci,
            uuid: DeviceUuid::new(uuid),
        })
    } else {
        Parsed::Other
    }
}

/// NVML's own bound for a UUID (`NVML_DEVICE_UUID_V2_BUFFER_SIZE`).
const UUID_BYTES_MAX: usize = 96;

/// From behind `The NVIDIA GPU `. A raw record holds all three lines at once.
fn lost_begin(text: &str, message: &str, injected: bool) -> Parsed {
    let place = text.split(' ').next().unwrap_or_default();
    let Some(pci) = address(place) else {
        return Parsed::Other;
    };
    let lost = Lost {
        pci,
        injected,
        evidence: message.to_owned(),
    };
    if text.contains("fallen off the bus") {
        Parsed::Lost(lost)
    } else {
        Parsed::LostBegin(lost)
    }
}

/// From `nvidia-nvswitch` on: `nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013, Non-fatal, …`.
fn sxid(message: &str, injected: bool) -> Parsed {
    let Some((switch, text)) = message.split_once(": ") else {
        return Parsed::Other;
    };
    if !text.starts_with("SXid") {
        return Parsed::Other;
    }
    let parse = || {
        let (place, rest) = text.strip_prefix("SXid (")?.split_once("): ")?;
        let pci = address(place)?;
        let (code, rest) = rest.split_once(", ")?;
        let code = number(code)?;
        let word = rest.split([',', ' ']).next()?;
        let fatal = match word {
            "Fatal" => true,
            "Non-fatal" => false,
            "Severity" | "Data" => return Some(Parsed::SxidDetail),
            _ => return None,
        };
        let link = rest
            .split_once(", Link ")
            .and_then(|(_, link)| link.split(' ').next()?.parse().ok());
        let (switch, evidence) = (switch.to_owned(), message.to_owned());
        Some(Parsed::Sxid(Sxid {
            pci,
            code,
            switch,
            fatal,
            link,
            injected,
            evidence,
        }))
    };
    parse().unwrap_or(Parsed::Unparsed)
}

/// An address in any form of the log; `(0003:00)` of old drivers is bus and device.
fn address(text: &str) -> Option<PciAddress> {
    let text = text.strip_prefix("PCI:").unwrap_or(text);
    text.parse().ok().or_else(|| {
        let (bus, device) = text.split_once(':')?;
        let bus = bus.strip_prefix("00").filter(|bus| bus.len() == 2)?;
        format!("{bus}:{device}").parse().ok()
    })
}

/// A plain decimal number; XIDs have three digits, SXids five.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn xid_of(line: &str) -> Xid {
        match parse_line(line) {
            Some(Parsed::Xid(xid)) => xid,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[track_caller]
    fn check(line: &str, expected: &Parsed) {
        assert_eq!(parse_line(line).as_ref(), Some(expected), "{line}");
    }

    #[test]
    fn n8_the_injected_mark_makes_a_drill() {
        let line = |mark| {
            format!(
                "NVRM: Xid (PCI:0000:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 {mark} Link 01 (0x021425c6 0x00000001)"
            )
        };
        assert!(xid_of(&line("i1")).injected);
        assert!(!xid_of(&line("i0")).injected);
        assert!(xid_of(&format!("12,1,2,-;{}", line("i0"))).injected);
        let nvlink = xid_of(&line("i1")).nvlink.unwrap();
        let expected = NvLink {
            unit: "NETIR_LINK_EVT".to_owned(),
            fatal: true,
            link: 1,
            intr_info: Some(0x0214_25c6),
            error_status: Some(1),
        };
        assert_eq!(nvlink, expected);
    }

    #[test]
    fn a_process_name_forges_nothing() {
        let xid = xid_of(
            "NVRM: Xid (PCI:0000:01:00): 145, pid=1, name=a, XC0 i1 Link, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x1 0x2)",
        );
        assert!(!xid.injected);
        assert_eq!(xid.nvlink.unwrap().link, 13);
        let xid = xid_of("NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=): 79, , Ch 00000008");
        assert_eq!((xid.code, xid.process.as_deref()), (31, Some("): 79")));
        let xid = xid_of("NVRM: Xid (PCI:0000:01:00): 45, pid=1, name=GPU-I:05, Ch 1");
        assert_eq!(xid.instance, None);
    }

    #[test]
    fn a_number_that_may_have_been_cut_is_not_believed() {
        check("NVRM: Xid (PCI:0000:01:00): 7", &Parsed::Unparsed);
        check("NVRM: Xid (PCI:0000:01:00): 79x, text", &Parsed::Unparsed);
        check("NVRM: Xid (PCI:0000:01:00): , text", &Parsed::Unparsed);
        check(
            "NVRM: Xid (PCI:0000:01:00): 9999999999, text",
            &Parsed::Unparsed,
        );
        check("NVRM: Xid (PCI:0000:zz:00): 79, text", &Parsed::Unparsed);
        check("NVRM: Xid: 79", &Parsed::Unparsed);
        check(
            "nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013",
            &Parsed::Unparsed,
        );
        check(
            "nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013, Strange, text",
            &Parsed::Unparsed,
        );
        assert_eq!(xid_of("NVRM: Xid (PCI:0000:01:00): 79, ").code, 79);
    }

    #[test]
    fn n4_mig_instances_and_recovery_actions_are_read() {
        let xid =
            xid_of("NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:02): 94, pid=7194, Contained: CE");
        assert_eq!(xid.instance.as_deref(), Some("GPU-I:05 GPU-CI:02"));
        assert_eq!(xid.pid, Some(7194));
        let xid = xid_of(
            "NVRM: Xid (PCI:0000:01:00): 154, pid=1, name=x, GPU recovery action changed from 0x4 (Drain and Reset) to 0x12 (New)",
        );
        assert_eq!(
            xid.recovery,
            Some(Recovery {
                previous: 4,
                action: 0x12
            })
        );
        assert_eq!(
            xid_of("NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x4")
                .recovery,
            None
        );
    }

    #[test]
    fn a_gpu_off_the_bus_is_seen_in_every_wording() {
        let pci: PciAddress = "0000:b3:00.0".parse().unwrap();
        for line in [
            "NVRM: GPU 0000:b3:00.0: GPU has fallen off the bus.",
            "NVRM: GPU at 0000:b3:00.0 has fallen off the bus.",
            "NVRM: GPU at PCI:0000:b3:00: GPU has fallen off the bus.",
            "4,1,2,-;NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
        ] {
            match parse_line(line) {
                Some(Parsed::Lost(lost)) => assert_eq!(lost.pci, pci, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        check("NVRM: GPU at PCI:0000:b3:00: GPU-\u{1b}[2J", &Parsed::Other);
    }

    #[test]
    fn old_addresses_are_bus_and_device() {
        assert_eq!(
            xid_of("NVRM: Xid (0003:00): 8, Channel").pci.to_string(),
            "0000:03:00.0"
        );
        assert_eq!(
            xid_of("NVRM: Xid (0000:00:05): 9, Channel").pci.to_string(),
            "0000:00:05.0"
        );
        check("NVRM: Xid (0103:00): 8, Channel", &Parsed::Unparsed);
    }
}
