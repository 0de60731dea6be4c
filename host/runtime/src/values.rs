//! What a flag's value may be, and how it is read.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use device_api_core::condition::Polarity;
use device_api_core::limits::{NAME_BYTES_MAX, SOCKET_PATH_BYTES_MAX};

use crate::units::parse_duration;

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// What injected and simulated faults may do (design N8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drills {
    /// They show, marked as drills, and change no health.
    Report,
    /// They count like real ones.
    Enforce,
}

/// What the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Platform {
    BareMetal,
    Vm,
}

/// A TCP address, or the wish for none. (A plain `Option` would mean "not given" to the parser.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpAddress {
    Off,
    At(SocketAddr),
}

/// A set of XID numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct XidSet(pub(crate) BTreeSet<u64>);

pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "expected a port number, 0 to 65535".to_owned())
}

/// What the kernel shows for whoever has no mapping in our user namespace
/// (`/proc/sys/kernel/overflowuid`), and what images call "nobody".
const OVERFLOW_ID: u32 = 65_534;

pub(crate) fn parse_id(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(OVERFLOW_ID) => Err(format!(
            "{OVERFLOW_ID} is whoever the kernel can't tell; run the writer under a number of its own"
        )),
        Ok(id) => Ok(id),
        Err(_) => Err("expected a number, as `id` tells it, not a name".to_owned()),
    }
}

pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address of this machine, as in 0.0.0.0 or 127.0.0.1".to_owned()
    })
}

pub(crate) fn parse_tcp_address(text: &str) -> Result<TcpAddress, String> {
    if text.is_empty() {
        return Ok(TcpAddress::Off);
    }
    let address = text.parse().map_err(|_| {
        "expected an IP address and a port, as in 127.0.0.1:50051, or \"\" for none".to_owned()
    })?;
    Ok(TcpAddress::At(address))
}

/// The empty path stands for none; [`crate::config`] leaves it out.
pub(crate) fn parse_socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_BYTES_MAX {
        let len = text.len();
        return Err(format!(
            "{len} bytes long, and the system allows {SOCKET_PATH_BYTES_MAX}; give a shorter path"
        ));
    }
    if text.contains('\0') {
        return Err("a path holds no NUL".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(crate) fn parse_xids(text: &str) -> Result<XidSet, String> {
    let number = |part: &str| {
        part.trim()
            .parse()
            .map_err(|_| format!("{:?} is no XID; expected numbers, as in 43,45", part.trim()))
    };
    let parts = text.split(',').filter(|_| !text.trim().is_empty());
    parts.map(number).collect::<Result<_, _>>().map(XidSet)
}

/// What plain TCP, which proves nobody's identity, is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InsecureTcp {
    /// On loopback only, to read.
    Off,
    /// On any address, to read.
    Read,
    /// On any address, and whoever reaches it may write.
    Write,
}

/// Whether what is written survives a restart (design C6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreMode {
    /// Yes: a write is answered when it would survive a kill.
    Durable,
    /// No: after a restart every GPU is Unknown until it is observed again.
    Memory,
}

/// What becomes of a policy that policies.yaml does not name (design H7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnlistedPolicies {
    /// It runs with the defaults.
    Defaults,
    /// It is refused, and the others are not.
    Refuse,
}

/// `IDENTITY=DURATION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProviderTimeout {
    pub(crate) identity: String,
    pub(crate) timeout: Duration,
}

/// `PATTERN=true-is-healthy` or `PATTERN=true-is-problem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolarityRow {
    pub(crate) pattern: String,
    pub(crate) polarity: Polarity,
}

/// How an identity begins, and what follows.
const IDENTITY_KINDS: [&str; 4] = ["uid:", "cn:", "dns:", "uri:"];

fn parse_identity(text: &str, kinds: &[&str]) -> Result<String, String> {
    let named = |kind: &&str| {
        text.strip_prefix(*kind)
            .is_some_and(|rest| !rest.is_empty())
    };
    if text.len() > NAME_BYTES_MAX {
        return Err(format!(
            "{} bytes long; at most {NAME_BYTES_MAX}",
            text.len()
        ));
    }
    if kinds.iter().any(named) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "expected an identity that begins with one of {}, as in {}",
            kinds.join(", "),
            "cn:node-agent or uri:spiffe://example.org/agent"
        ))
    }
}

/// Who a client's certificate may say it is.
pub(crate) fn parse_certificate_identity(text: &str) -> Result<String, String> {
    let [_uid, kinds @ ..] = IDENTITY_KINDS;
    parse_identity(text, &kinds)
}

/// The duration is after the last `=`: a name may hold one.
pub(crate) fn parse_provider_timeout(text: &str) -> Result<ProviderTimeout, String> {
    let (identity, timeout) = text
        .rsplit_once('=')
        .ok_or("expected IDENTITY=DURATION, as in uid:1001=30s")?;
    Ok(ProviderTimeout {
        identity: parse_identity(identity, &IDENTITY_KINDS)?,
        timeout: parse_duration(timeout)?,
    })
}

pub(crate) fn parse_polarity(text: &str) -> Result<PolarityRow, String> {
    const EXPECTED: &str = "expected PATTERN=true-is-healthy or PATTERN=true-is-problem, as in Gpu*Watch=true-is-problem";
    let (pattern, polarity) = text.split_once('=').ok_or(EXPECTED)?;
    let polarity = match polarity {
        "true-is-healthy" => Polarity::TrueIsHealthy,
        "true-is-problem" => Polarity::TrueIsProblem,
        _ => return Err(EXPECTED.to_owned()),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./*".contains(c);
    if pattern.is_empty() || pattern.len() > NAME_BYTES_MAX || !pattern.chars().all(fits) {
        return Err(format!("{pattern:?} matches no condition type; {EXPECTED}"));
    }
    if pattern.matches('*').count() > 1 {
        return Err(format!(
            "{pattern:?} has more than one *; one is understood"
        ));
    }
    Ok(PolarityRow {
        pattern: pattern.to_owned(),
        polarity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_an_identity_has_a_timeout() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, u64)>) {
            let read = parse_provider_timeout(text).ok();
            let read = read
                .as_ref()
                .map(|read| (read.identity.as_str(), read.timeout.as_secs()));
            assert_eq!(read, expected, "{text}");
        }
        check("uid:1001=30s", Some(("uid:1001", 30)));
        check("cn:a=b=2m", Some(("cn:a=b", 120)));
        check(
            "uri:spiffe://example.org/agent=1h",
            Some(("uri:spiffe://example.org/agent", 3600)),
        );
        check("uid:=30s", None);
        check("1001=30s", None);
        check("uid:1001", None);
        check("uid:1001=30", None);
    }

    #[test]
    fn p3_a_pattern_has_a_polarity() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, Polarity)>) {
            let read = parse_polarity(text).ok();
            let read = read
                .as_ref()
                .map(|read| (read.pattern.as_str(), read.polarity));
            assert_eq!(read, expected, "{text}");
        }
        check(
            "Gpu*Watch=true-is-problem",
            Some(("Gpu*Watch", Polarity::TrueIsProblem)),
        );
        check(
            "FanReady=true-is-healthy",
            Some(("FanReady", Polarity::TrueIsHealthy)),
        );
        check("FanReady", None);
        check("FanReady=true", None);
        check("=true-is-healthy", None);
        check("G*u*=true-is-healthy", None);
        check("Fan Ready=true-is-healthy", None);
    }

    #[test]
    fn certificates_have_names_and_uids_are_none_of_them() {
        for text in ["cn:node-agent", "dns:a.example", "uri:spiffe://d/a"] {
            assert_eq!(parse_certificate_identity(text).as_deref(), Ok(text));
        }
        for text in ["uid:0", "node-agent", "cn:", ""] {
            assert!(parse_certificate_identity(text).is_err(), "{text}");
        }
    }

    #[test]
    fn p4_nobody_in_particular_may_not_be_listed() {
        assert_eq!(parse_id("0"), Ok(0));
        assert_eq!(parse_id("65533"), Ok(65_533));
        for (text, says) in [
            ("65534", "of its own"),
            ("nobody", "not a name"),
            ("-1", "a number"),
        ] {
            let error = parse_id(text).expect_err("refused");
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn xids_are_read_as_a_list() {
        assert_eq!(
            parse_xids("43, 45,43"),
            Ok(XidSet(BTreeSet::from([43, 45])))
        );
        assert_eq!(parse_xids(""), Ok(XidSet::default()));
        assert!(parse_xids("43,,45").is_err());
        assert!(parse_xids("43,x").unwrap_err().contains("\"x\""));
    }

    #[test]
    fn a_socket_path_fits_the_systems_bound() {
        let longest = "/".repeat(SOCKET_PATH_BYTES_MAX);
        assert!(parse_socket_path(&longest).is_ok());
        assert!(
            parse_socket_path(&format!("{longest}x"))
                .unwrap_err()
                .contains("108")
        );
    }
}
