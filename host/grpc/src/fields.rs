//! What both dialects check of a request. An error names the field by its path in the message.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use device_api_core::clock::WallTime;
use device_api_core::condition::READY;
use device_api_core::error::ApiError;
use device_api_core::ids::{DeviceUuid, ObjectKey};
use device_api_core::limits::{Bounds, NAME_BYTES_MAX};
use device_api_core::provider::ProviderCondition;
use device_api_core::watch::Scope;
use prost_types::Timestamp;

use crate::status::Refusal;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Length of a lease id: ours are UUIDs, of 36 bytes.
const LEASE_ID_BYTES_MAX: usize = 64;

/// `None`: less than nothing, or malformed.
pub(crate) fn span(asked: prost_types::Duration) -> Option<Duration> {
    // By hand: the library's own conversion overflows at the least of all seconds.
    let nanos = u32::try_from(asked.nanos).ok()?;
    let seconds = u64::try_from(asked.seconds).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// A field of a request that says what can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    path: String,
    why: String,
}

impl FieldError {
    pub(crate) fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            why: why.into(),
        }
    }

    pub(crate) fn required(path: impl Into<String>) -> Self {
        Self::new(path, "required")
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// The fields of a request that name one object; `path` ends in a dot or is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) path: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl Named<'_> {
    /// The key of an object to look up. Of the name only presence and length are checked: one that
    /// could not have been created is simply not found.
    pub(crate) fn existing(self) -> Result<ObjectKey, FieldError> {
        if self.name.is_empty() {
            return Err(FieldError::required(format!("{}name", self.path)));
        }
        bounded(format!("{}name", self.path), self.name, NAME_BYTES_MAX)?;
        bounded(
            format!("{}namespace", self.path),
            self.namespace,
            NAME_BYTES_MAX,
        )?;
        Ok(ObjectKey::new(self.namespace, self.name))
    }

    /// The key of an object to create.
    pub(crate) fn new_object(self) -> Result<ObjectKey, FieldError> {
        object_name(&format!("{}name", self.path), self.name)?;
        if !self.namespace.is_empty() {
            object_name(&format!("{}namespace", self.path), self.namespace)?;
        }
        Ok(ObjectKey::new(self.namespace, self.name))
    }
}

/// The namespace of a list or a watch. One that could not have been created selects nothing.
pub(crate) fn scope(path: &str, namespace: &str) -> Result<Scope, FieldError> {
    bounded(path, namespace, NAME_BYTES_MAX)?;
    Ok(Scope::from_wire(namespace))
}

/// Proof of a registration.
pub(crate) fn lease_id(lease_id: &str) -> Result<(), FieldError> {
    if lease_id.is_empty() {
        return Err(FieldError::new(
            "lease_id",
            "required; RegisterProvider gives one",
        ));
    }
    bounded("lease_id", lease_id, LEASE_ID_BYTES_MAX)
}

/// A DNS-safe name or an NVML UUID: letters, digits, `-` and `.`, no more than Kubernetes allows,
/// but for the capitals of NVML's UUIDs.
pub(crate) fn object_name(path: &str, name: &str) -> Result<(), FieldError> {
    if name.is_empty() {
        return Err(FieldError::required(path));
    }
    bounded(path, name, NAME_BYTES_MAX)?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if !(bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())) {
        let why = "not a name; use letters, digits, '-' and '.', a letter or digit first and last";
        return Err(FieldError::new(path, why));
    }
    Ok(())
}

/// NVML's UUID of a device. `/` is there for the MIG UUIDs of drivers before R470
/// (`MIG-GPU-…/7/0`).
pub(crate) fn device_uuid(path: &str, uuid: &str) -> Result<DeviceUuid, FieldError> {
    if uuid.is_empty() {
        return Err(FieldError::required(path));
    }
    bounded(path, uuid, NAME_BYTES_MAX)?;
    if !uuid
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'/'))
    {
        return Err(FieldError::new(
            path,
            "not a device UUID; NVML's look like GPU-8f1a… or MIG-8f1a…",
        ));
    }
    Ok(DeviceUuid::new(uuid))
}

/// A condition's type: a CamelCase word, or a qualified one as in Kubernetes.
pub(crate) fn condition_type(path: &str, type_: &str) -> Result<(), FieldError> {
    if type_.is_empty() {
        return Err(FieldError::required(path));
    }
    bounded(path, type_, NAME_BYTES_MAX)?;
    if !type_
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
    {
        return Err(FieldError::new(
            path,
            "not a condition type; use letters, digits, '-', '_', '.' and '/'",
        ));
    }
    Ok(())
}

/// Text of at most `bytes_max` bytes.
pub(crate) fn bounded(
    path: impl Into<String>,
    text: &str,
    bytes_max: usize,
) -> Result<(), FieldError> {
    if text.len() > bytes_max {
        return Err(FieldError::new(
            path,
            format!("{} bytes; at most {bytes_max}", text.len()),
        ));
    }
    Ok(())
}

/// A time on the wire; one that was never set is absent.
pub(crate) fn timestamp(at: WallTime) -> Option<Timestamp> {
    (at.unix_ns > 0).then(|| Timestamp {
        seconds: i64::try_from(at.unix_ns / NANOS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.unix_ns % NANOS_PER_SECOND).unwrap_or_default(),
    })
}

/// The conditions of one update, each read by `read`; no type may be in it twice. `Ready` does not count:
/// it is derived, and a client that writes back what it was shown repeats it. (A vote on it counts
/// where it is stored.)
pub(crate) fn conditions<W>(
    bounds: &Bounds,
    path: &str,
    wire: Vec<W>,
    read: impl Fn(&str, W) -> Result<ProviderCondition, FieldError>,
) -> Result<Vec<ProviderCondition>, Refusal> {
    let max = bounds.conditions_per_gpu;
    let limit = "conditions-per-gpu";
    if wire.len() > max + 1 {
        return Err(ApiError::Exhausted { limit, max }.into());
    }
    let mut seen = BTreeSet::new();
    let mut conditions = Vec::with_capacity(wire.len());
    for (at, wire) in wire.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let condition = read(&path, wire)?;
        if !seen.insert(condition.type_.clone()) {
            let why = "appears twice; say each type once";
            return Err(FieldError::new(format!("{path}.type"), why).into());
        }
        conditions.push(condition);
    }
    if conditions.len() - usize::from(seen.contains(READY)) > max {
        return Err(ApiError::Exhausted { limit, max }.into());
    }
    Ok(conditions)
}

/// A time from the wire.
pub(crate) fn wall_time(path: &str, at: Timestamp) -> Result<WallTime, FieldError> {
    let parse = || {
        let seconds = u64::try_from(at.seconds).ok()?;
        let nanos = u64::try_from(at.nanos)
            .ok()
            .filter(|nanos| *nanos < NANOS_PER_SECOND)?;
        seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
    };
    let unix_ns =
        parse().ok_or_else(|| FieldError::new(path, "not a time between 1970 and 2554"))?;
    Ok(WallTime { unix_ns })
}

#[cfg(test)]
mod tests {
    use device_api_core::limits::MESSAGE_BYTES_MAX;
    use device_api_core::message;

    use super::*;

    #[test]
    fn names_are_dns_safe_or_nvml_uuids() {
        #[track_caller]
        fn check(name: &str, expected: Result<(), &str>) {
            let expected = expected.map_err(str::to_owned);
            assert_eq!(
                object_name("gpu.name", name).map_err(|error| error.to_string()),
                expected,
                "{name:?}"
            );
        }
        let no_name = "gpu.name: not a name; use letters, digits, '-' and '.', a letter or digit first and last";
        check("gpu-0", Ok(()));
        check("GPU-8f1a2b3c-0000-1111-2222-333344445555", Ok(()));
        check("node1.gpu0", Ok(()));
        check(&"a".repeat(253), Ok(()));
        check("", Err("gpu.name: required"));
        check("-gpu", Err(no_name));
        check("gpu.", Err(no_name));
        check("gpu/0", Err(no_name));
        check("gpu 0", Err(no_name));
        check("gpü", Err(no_name));
        check(&"a".repeat(254), Err("gpu.name: 254 bytes; at most 253"));
    }

    #[test]
    fn a_name_to_look_up_may_be_any_text_within_bounds() {
        let named = |namespace, name| Named {
            path: "",
            namespace,
            name,
        };
        assert_eq!(
            named("", "no such_name").existing(),
            Ok(ObjectKey::new("default", "no such_name"))
        );
        assert_eq!(named("a", "").existing(), Err(FieldError::required("name")));
        assert!(named(&"n".repeat(254), "a").existing().is_err());
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let long = format!("{}é", "a".repeat(MESSAGE_BYTES_MAX - 1));
        assert_eq!(message::cut(long).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(message::cut("short".to_owned()), "short");
    }

    #[test]
    fn times_outside_the_epoch_are_refused() {
        #[track_caller]
        fn check(seconds: i64, nanos: i32, expected: Option<u64>) {
            let parsed = wall_time("t", Timestamp { seconds, nanos }).ok();
            assert_eq!(parsed.map(|at| at.unix_ns), expected);
        }
        check(1, 5, Some(1_000_000_005));
        check(-1, 0, None);
        check(0, -1, None);
        check(0, 1_000_000_000, None);
        check(i64::MAX, 0, None);
    }

    proptest::proptest! {
        #[test]
        fn times_survive_a_round_trip(unix_ns in 1_u64..) {
            let at = WallTime { unix_ns };
            proptest::prop_assert_eq!(timestamp(at).map(|wire| wall_time("t", wire)), Some(Ok(at)));
        }
    }
}
