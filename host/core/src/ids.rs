//! Names of things. Each is its own type, so that a version is never taken for a sequence number.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Store-wide version of the content: one counter, +1 for each write that changes something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(pub u64);

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a signal in the order the host observed them; unique in one run of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalSeq(pub u64);

/// Number of an incident: one fault, however many signals tell of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);

/// NVML's UUID of a device, `GPU-…` or `MIG-…`. Conditions are keyed by it (design C7).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid(Arc<str>);

impl DeviceUuid {
    pub fn new(uuid: &str) -> Self {
        Self(uuid.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of an object in the API: a namespace and a name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// The namespace an empty one stands for (wire.md: empty means `default` for one object).
pub const DEFAULT_NAMESPACE: &str = "default";

impl ObjectKey {
    /// An empty `namespace` means [`DEFAULT_NAMESPACE`].
    pub fn new(namespace: &str, name: &str) -> Self {
        let namespace = if namespace.is_empty() {
            DEFAULT_NAMESPACE
        } else {
            namespace
        };
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.namespace == DEFAULT_NAMESPACE {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// PCI address of a function: domain, bus, device, function.
///
/// Reads every form in which NVML and the kernel log write it (`0000:a1:00.0`, `00000000:A1:00.0`,
/// `0000:a1:00`, and the domain-less `a1:00.0`); writes the Linux one, `0000:a1:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

/// The text is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPci(pub String);

impl fmt::Display for NotPci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a PCI address; expected domain:bus:device.function, as in 0000:a1:00.0",
            self.0
        )
    }
}

impl std::error::Error for NotPci {}

impl FromStr for PciAddress {
    type Err = NotPci;

    fn from_str(text: &str) -> Result<Self, NotPci> {
        let parse = || {
            let (address, function) = match text.split_once('.') {
                Some((address, function)) => (address, hex(function, 1)? as u8),
                None => (text, 0),
            };
            let mut parts = address.rsplit(':');
            let device = hex(parts.next()?, 2)? as u8;
            let bus = hex(parts.next()?, 2)? as u8;
            let domain = parts.next().map_or(Some(0), |part| hex(part, 8))?;
            parts.next().is_none().then_some(Self {
                domain,
                bus,
                device,
                function,
            })
        };
        parse().ok_or_else(|| NotPci(text.chars().take(64).collect()))
    }
}

fn hex(text: &str, digits_max: usize) -> Option<u32> {
    let plain =
        !text.is_empty() && text.len() <= digits_max && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Option<&str>) {
        assert_eq!(
            input
                .parse::<PciAddress>()
                .ok()
                .map(|pci| pci.to_string())
                .as_deref(),
            expected
        );
    }

    #[test]
    fn pci_addresses_are_read_in_every_form_and_written_in_one() {
        check("0000:a1:00.0", Some("0000:a1:00.0"));
        check("00000000:A1:00.0", Some("0000:a1:00.0"));
        check("0000:a1:00", Some("0000:a1:00.0"));
        check("a1:00.0", Some("0000:a1:00.0"));
        check("0018:01:00", Some("0018:01:00.0"));
        check("0001:ab:cd", Some("0001:ab:cd.0"));
        check("", None);
        check("0000:a1", None);
        check("0000:a1:00.0.0", None);
        check("0:0000:a1:00", None);
        check("+1:a1:00", None);
    }

    #[test]
    fn an_empty_namespace_means_default() {
        assert_eq!(
            ObjectKey::new("", "gpu-0"),
            ObjectKey::new("default", "gpu-0")
        );
        assert_eq!(ObjectKey::new("", "gpu-0").to_string(), "gpu-0");
        assert_eq!(ObjectKey::new("other", "gpu-0").to_string(), "other/gpu-0");
    }
}
