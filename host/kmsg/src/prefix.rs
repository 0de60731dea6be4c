//! What stands before the driver's message: the styles of `dmesg`, syslog, the journal and the raw
//! records of `/dev/kmsg`.
//!
//! A prefix is read from the left by a grammar, not skipped: else any program that logs text like
//! the driver's could raise a fault through a syslog file.

use std::borrow::Cow;

/// A line without its prefix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stripped<'a> {
    /// From the driver's tag (`NVRM:`, `nvidia-nvswitch`) on, in one line.
    pub(crate) message: Cow<'a, str>,
    /// The prefix says that a process wrote it, not the kernel.
    pub(crate) from_process: bool,
}

/// Tags that the driver's messages begin with.
pub(crate) const NVRM: &str = "NVRM:";
pub(crate) const NVSWITCH: &str = "nvidia-nvswitch";

/// Syslog facility 0 is the kernel; the kernel gives no other writer of `/dev/kmsg` that one.
const FACILITY_KERNEL: u32 = 0;

/// The driver's message in a line of the kernel log; `None` where it is none.
pub(crate) fn strip(line: &str) -> Option<Stripped<'_>> {
    if !line.contains(NVRM) && !line.contains(NVSWITCH) {
        return None;
    }
    let line = line.trim_start();
    let stripped = if let Some(record) = raw_record(line) {
        let message = unescape(record.message);
        Stripped {
            message,
            from_process: record.facility != FACILITY_KERNEL,
        }
    } else {
        let (facility, rest) = level(line);
        let message = tag(timestamps(rest))?;
        Stripped {
            message: Cow::Borrowed(message.trim_end()),
            from_process: facility != FACILITY_KERNEL,
        }
    };
    is_driver(&stripped.message).then_some(stripped)
}

/// A record of `/dev/kmsg`: `prio,sequence,usec,flags[,…];message`, then ` KEY=value` lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    pub(crate) facility: u32,
    pub(crate) sequence: u64,
    pub(crate) message: &'a str,
}

pub(crate) fn raw_record(line: &str) -> Option<RawRecord<'_>> {
    let (header, rest) = line.split_once(';')?;
    let mut fields = header.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence: u64 = fields.next()?.parse().ok()?;
    let _boot_us: u64 = fields.next()?.parse().ok()?;
    fields.next()?;
    let message = rest
        .split_once('\n')
        .map_or(rest, |(message, _dictionary)| message);
    Some(RawRecord {
        facility: priority >> 3,
        sequence,
        message,
    })
}

/// Undoes the `\xNN` of raw records. Line breaks become spaces: a message is one line here.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains("\\x") {
        return Cow::Borrowed(text.trim_end());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split("\\x");
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part
            .get(..2)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(if byte == b'\n' { b' ' } else { byte });
                bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The level, as `dmesg -r` (`<4>`) or `dmesg -x` (`kern  :warn  : `) writes it: its facility, the rest.
fn level(line: &str) -> (u32, &str) {
    let numeric = || {
        let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
        Some((priority.parse::<u32>().ok()? >> 3, rest))
    };
    let words = || {
        let (facility, rest) = line.split_once(':')?;
        let (severity, rest) = rest.split_once(':')?;
        let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        let known =
            plain(facility.trim_end()) && plain(severity.trim_end()) && rest.starts_with(' ');
        // Any other facility's number would do: only the kernel's is asked for.
        known.then(|| {
            (
                if facility.trim_end() == "kern" {
                    FACILITY_KERNEL
                } else {
                    1
                },
                rest.trim_start(),
            )
        })
    };
    numeric().or_else(words).unwrap_or((FACILITY_KERNEL, line))
}

/// Takes the tag `kernel:` away, and the host name before it; what has no tag must be the driver's.
fn tag(text: &str) -> Option<&str> {
    if is_driver(text) {
        return Some(text);
    }
    let after = match text.strip_prefix("kernel:") {
        Some(after) => after,
        None => {
            let (host, rest) = word(text)?;
            (!host.ends_with(':'))
                .then(|| rest.strip_prefix("kernel:"))
                .flatten()?
        }
    };
    Some(brackets(after.trim_start()))
}

fn is_driver(text: &str) -> bool {
    text.starts_with(NVRM) || text.starts_with(NVSWITCH)
}

/// Takes one time away, in whatever style, and nothing else.
fn timestamps(text: &str) -> &str {
    let bracketed = brackets(text);
    if bracketed.len() != text.len() {
        return bracketed;
    }
    iso(text)
        .or_else(|| classic(text))
        .or_else(|| full(text))
        .unwrap_or(text)
}

/// `[  179.437927] `, `[Fri Apr  5 21:29:39 2024] `, and the `[ T1234]` of the printing thread.
fn brackets(mut text: &str) -> &str {
    while let Some((inside, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if !inside
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, ' ' | '.' | ',' | ':' | '+' | '-'))
        {
            break;
        }
        text = rest.trim_start();
    }
    text
}

/// `2025-07-23T20:06:52.625742+02:00 ` and Unix seconds, `1753300012.625742 `.
fn iso(text: &str) -> Option<&str> {
    let (first, rest) = word(text)?;
    let digits = first.starts_with(|c: char| c.is_ascii_digit());
    let plain = first
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | ',' | '+' | 'T' | 'Z'));
    (digits && plain).then_some(rest)
}

/// `Apr 19 13:16:41 `, with or without a fraction, the month in any language.
fn classic(text: &str) -> Option<&str> {
    let (month, rest) = word(text)?;
    let (day, rest) = word(rest)?;
    let (time, rest) = word(rest)?;
    let named = month.chars().all(|c| c.is_alphabetic() || c == '.');
    (named && day.bytes().all(|b| b.is_ascii_digit()) && is_clock(time)).then_some(rest)
}

/// `Wed 2025-07-23 20:06:52 CEST `.
fn full(text: &str) -> Option<&str> {
    let (_day, rest) = word(text)?;
    let (date, rest) = word(rest)?;
    let (time, rest) = word(rest)?;
    let (_zone, rest) = word(rest)?;
    let dated = date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    (dated && is_clock(time)).then_some(rest)
}

fn is_clock(word: &str) -> bool {
    word.contains(':')
        && word
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'))
}

/// The first word and what follows the blanks behind it.
fn word(text: &str) -> Option<(&str, &str)> {
    text.split_once(' ')
        .map(|(first, rest)| (first, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<(&str, bool)>) {
        let stripped = strip(line);
        assert_eq!(
            stripped.as_ref().map(|s| (&*s.message, s.from_process)),
            expected,
            "{line}"
        );
    }

    #[test]
    fn every_style_of_prefix_is_read() {
        for prefix in [
            "",
            "  ",
            "[Fri Apr  5 21:29:39 2024] ",
            "[ 1843.308145] ",
            "[   38.178720][ T1234] ",
            "[   38.178720] [ T1234] ",
            "kernel: ",
            "kernel: [16450076.435595] ",
            "kern  :warn  : 2025-01-21T04:41:44,283575+00:00 ",
            "kern  :err   : [  179.437927] ",
            "<4>[  179.437927] ",
            "2025-07-23T20:06:52.625742+02:00 node-a kernel: [612856.528273] ",
            "2025-07-23T20:06:52+0200 node-a kernel: ",
            "Apr 19 13:16:41 node-a kernel: ",
            "Apr  9 13:16:41.123456 node-a kernel: ",
            "Mär 19 13:16:41 node-a kernel: ",
            "Okt 06 17:59:27 node-a kernel: ",
            "Mar 29 15:38:59 kernel: ",
            "Wed 2025-07-23 20:06:52 CEST node-a kernel: ",
            "1753300012.625742 node-a kernel: ",
            "[612856.528273] node-a kernel: ",
            "4,1234,430954509105,-;",
            "4,1234,430954509105,-,caller=T12;",
        ] {
            check(&format!("{prefix}NVRM: text"), Some(("NVRM: text", false)));
            check(
                &format!("{prefix}nvidia-nvswitch3: text"),
                Some(("nvidia-nvswitch3: text", false)),
            );
        }
    }

    #[test]
    fn n8_what_a_process_wrote_is_told_apart() {
        check(
            "12,1234,430954509105,-;NVRM: text",
            Some(("NVRM: text", true)),
        );
        check(
            "user  :warn  : [  179.437927] NVRM: text",
            Some(("NVRM: text", true)),
        );
        check("<12>[  179.437927] NVRM: text", Some(("NVRM: text", true)));
    }

    #[test]
    fn other_programs_are_not_the_kernel() {
        check("Apr 19 13:16:41 node-a myapp: NVRM: text", None);
        check("Apr 19 13:16:41 node-a myapp[12]: NVRM: text", None);
        check("Apr 19 13:16:41 node-a myapp: kernel: NVRM: text", None);
        check("myapp: kernel: NVRM: text", None);
        check(
            "Apr 19 13:16:41 node-a kernel: audit: comm=\"NVRM: text",
            None,
        );
        check("[ 12.5] usb 1-1: NVRM: text", None);
        check("text NVRM: text", None);
        check("NVRM", None);
    }

    #[test]
    fn raw_records_lose_their_escapes_and_their_dictionary() {
        check(
            "4,1,2,-;NVRM: a\\x0aNVRM: caf\\xc3\\xa9 \\x5c \\xzz\n SUBSYSTEM=pci\n DEVICE=+pci:0000:a1:00.0",
            Some(("NVRM: a NVRM: café \\ \\xzz", false)),
        );
        check("4,1,2;NVRM: a", None);
        check("4,-1,2,-;NVRM: a", None);
    }
}
