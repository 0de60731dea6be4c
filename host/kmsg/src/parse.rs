//! One line of the kernel log to what it says of a GPU. Pure; no input makes it panic.
//!
//! Grammar (driver 595): `NVRM: Xid (PCI:dddd:bb:dd[ GPU-I:ii[ GPU-CI:cc]]): N[, pid=P, name=NAME], MSG[
//! caused by previous Xid M]`. Older drivers leave out `PCI:`, the domain, the pid or the name.
//!
//! NAME is chosen by a process (at most 15 bytes, any of them). So whatever decides something is
//! looked for before it, or from the end of the line.

use device_api_core::ids::{DeviceUuid, PciAddress};

use crate::parsed::{Identity, Lost, NvLink, Parsed, Recovery, Sxid, Xid};
use crate::prefix::{self, NVRM, NVSWITCH};

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
mod tests;
