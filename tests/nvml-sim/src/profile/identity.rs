//! Who is who on a simulated node: the same in every run.

use std::fmt;

use super::{GPUS_MAX, Profile, SLOTS};

/// Where a GPU sits. `Display` is `0000:1b:00.0`, as Linux writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSlot {
    pub domain: u32,
    pub bus: u8,
}

impl PciSlot {
    /// `0000:1b:00`, as the driver's kernel messages have it.
    pub fn kernel(self) -> String {
        format!("{:04x}:{:02x}:00", self.domain, self.bus)
    }

    /// `00000000:1B:00.0`, as NVML has it.
    pub fn bus_id(self) -> String {
        format!("{:08X}:{:02X}:00.0", self.domain, self.bus)
    }

    /// `0000:1B:00.0`, NVML's older form.
    pub fn bus_id_legacy(self) -> String {
        format!("{:04X}:{:02X}:00.0", self.domain, self.bus)
    }

    /// Reads `[domain:]bus:device[.function]` in hexadecimal; these GPUs are device 0, function 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, function) = text.split_once('.').unwrap_or((text, "0"));
        let mut parts = address
            .rsplit(':')
            .map(|part| u32::from_str_radix(part, 16).ok());
        let device = parts.next()??;
        let bus = u8::try_from(parts.next()??).ok()?;
        let domain = parts.next().unwrap_or(Some(0))?;
        let whole = parts.next().is_none() && device == 0 && function == "0";
        whole.then_some(Self { domain, bus })
    }
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:00.0", self.domain, self.bus)
    }
}

/// Who a simulated GPU is: the same in every run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub index: u32,
    pub uuid: String,
    pub serial: String,
    pub pci: PciSlot,
}

impl Profile {
    /// The `index`-th GPU; nothing past [`GPUS_MAX`].
    pub fn gpu(&self, index: u32) -> Option<Identity> {
        self.replacement(index, 0)
    }

    /// What is in that slot after so many replacements.
    pub(crate) fn replacement(&self, index: u32, generation: u32) -> Option<Identity> {
        if index >= GPUS_MAX {
            return None;
        }
        let slot = usize::try_from(index).ok()?;
        let (domain, bus) = *self.slots.get(slot % SLOTS)?;
        let tray = index / u32::try_from(SLOTS).ok()?;
        let who = u64::from(index) | u64::from(generation) << 32;
        let seed = self
            .key
            .bytes()
            .fold(who, |seed, byte| mix(seed ^ u64::from(byte)));
        Some(Identity {
            index,
            uuid: uuid("GPU", seed),
            serial: format!("165{:010}", mix(seed ^ 1) % 10_000_000_000),
            pci: PciSlot {
                domain: domain + tray * self.pci.domain_stride,
                bus,
            },
        })
    }

    /// The first `count` GPUs, at most [`GPUS_MAX`].
    pub fn gpus(&self, count: u32) -> Vec<Identity> {
        (0..count).map_while(|index| self.gpu(index)).collect()
    }
}

impl Identity {
    /// A name for the `number`-th MIG instance that this GPU ever had.
    pub(crate) fn mig_uuid(&self, number: u64) -> String {
        let seed = self
            .uuid
            .bytes()
            .fold(number, |seed, byte| mix(seed ^ u64::from(byte)));
        uuid("MIG", seed)
    }
}

fn uuid(kind: &str, seed: u64) -> String {
    let (high, low) = (mix(seed), mix(seed ^ u64::MAX));
    // Version 4, variant 1, as the driver's own look.
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    format!(
        "{kind}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// splitmix64: near inputs give far outputs.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_read_in_every_form() {
        let slot = Profile::standard().gpu(0).unwrap().pci;
        assert_eq!(slot.to_string(), "0000:1b:00.0");
        for form in [
            slot.to_string(),
            slot.bus_id(),
            slot.bus_id_legacy(),
            "1b:00".to_owned(),
        ] {
            assert_eq!(PciSlot::parse(&form), Some(slot), "{form}");
        }
        for form in [
            "",
            "1b",
            "zz:00.0",
            "0:0:1b:00.0",
            "1b:01.0",
            "1b:00.1",
            "100:00.0",
        ] {
            assert_eq!(PciSlot::parse(form), None, "{form}");
        }
    }
}
