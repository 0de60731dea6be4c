//! What a device is: facts that NVML (or a provider) states about it.

use std::collections::BTreeMap;

use crate::ids::{DeviceUuid, PciAddress};

/// Inventory of one GPU. What the device does not tell is absent (`None`, empty), never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub uuid: DeviceUuid,
    pub pci: Option<PciAddress>,
    /// NVML's index: not stable over a reboot or a reset.
    pub index: Option<u32>,
    /// Minor number: `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Product name, as in `NVIDIA H100 80GB HBM3`.
    pub product: String,
    /// `Ampere`, `Hopper`, `Blackwell`, …
    pub architecture: String,
    pub serial: String,
    /// Frame buffer in bytes.
    pub memory_bytes: Option<u64>,
    /// Driver version, as in `580.82.07`.
    pub driver_version: String,
    /// Newest CUDA version that the driver supports, as in `13.0`.
    pub cuda_version: String,
    pub mig: Vec<MigInstance>,
    /// Of a MIG instance: whose part it is (design N9).
    pub parent: Option<Parent>,
    /// What it is made of and connected to.
    pub hardware: Hardware,
    /// Simulated: whatever it reports is a drill (design N8).
    pub simulated: bool,
    pub labels: BTreeMap<String, String>,
}

impl DeviceInfo {
    /// A device of which nothing but its UUID is known.
    pub fn bare(uuid: DeviceUuid) -> Self {
        Self {
            uuid,
            pci: None,
            index: None,
            minor: None,
            product: String::new(),
            architecture: String::new(),
            serial: String::new(),
            memory_bytes: None,
            driver_version: String::new(),
            cuda_version: String::new(),
            mig: Vec::new(),
            parent: None,
            hardware: Hardware::default(),
            simulated: false,
            labels: BTreeMap::new(),
        }
    }
}

impl DeviceInfo {
    /// One of its MIG instances as a device of its own: on the same board, in the same slot.
    #[must_use]
    pub fn instance(&self, mig: &MigInstance) -> Self {
        let MigInstance {
            uuid,
            gpu_instance,
            compute_instance,
            profile,
            memory_bytes,
        } = mig;
        Self {
            uuid: uuid.clone(),
            index: None,
            minor: None,
            memory_bytes: *memory_bytes,
            mig: Vec::new(),
            parent: Some(Parent {
                gpu: self.uuid.clone(),
                gpu_instance: *gpu_instance,
                compute_instance: *compute_instance,
                profile: profile.clone(),
            }),
            hardware: Hardware::default(),
            ..self.clone()
        }
    }

    /// Whether one of its NVLinks leads to that NVSwitch.
    pub fn is_behind(&self, switch: PciAddress) -> bool {
        let mut links = self.hardware.nvlinks.iter();
        links.any(|link| link.remote_pci == Some(switch))
    }

    /// Whether one of its NVLinks leads to that port of that NVSwitch.
    pub fn is_at(&self, switch: PciAddress, port: u32) -> bool {
        let mut links = self.hardware.nvlinks.iter();
        links.any(|link| link.remote_pci == Some(switch) && link.remote_link == Some(port))
    }

    /// Whether it is behind that NVSwitch, and nothing rules out that it is at that port of it.
    pub fn may_be_at(&self, switch: PciAddress, port: u32) -> bool {
        let mut links = self.hardware.nvlinks.iter();
        self.is_behind(switch) && links.any(|link| link.may_end_at(switch, port))
    }

    /// Takes over where its NVLinks lead from what was known of it before, in the same slot: they are soldered, and
    /// NVML does not tell it of a link that is down.
    pub fn keep_wiring(&mut self, before: &Self) {
        if self.pci != before.pci {
            return;
        }
        for link in &mut self.hardware.nvlinks {
            let mut known = before.hardware.nvlinks.iter();
            let Some(known) = known.find(|known| known.link == link.link) else {
                continue;
            };
            if link.remote_pci.is_none() && link.remote_link.is_none() {
                link.remote = link.remote.take().or_else(|| known.remote.clone());
                (link.remote_pci, link.remote_link) = (known.remote_pci, known.remote_link);
            }
        }
    }

    /// Whether it has that MIG instance.
    pub fn has_instance(&self, uuid: &str) -> bool {
        self.mig.iter().any(|mig| mig.uuid.as_str() == uuid)
    }

    /// The MIG instances that a source means: one by its UUID; by `GPU-I:05 GPU-CI:02` that one; by
    /// `GPU-I:05`, or a compute instance that is not known, all of the GPU instance (design N9). None: it means
    /// no instance that is there.
    pub fn instances_named(&self, words: &str) -> Vec<&MigInstance> {
        if let Some(named) = self.mig.iter().find(|mig| mig.uuid.as_str() == words) {
            return vec![named];
        }
        let Some((gpu_instance, compute_instance)) = place(words) else {
            return Vec::new();
        };
        let inside = self.mig.iter();
        let inside: Vec<_> = inside
            .filter(|mig| mig.gpu_instance == gpu_instance)
            .collect();
        let named = inside
            .iter()
            .find(|mig| compute_instance.is_some() && mig.compute_instance == compute_instance);
        named.map_or(inside.clone(), |named| vec![*named])
    }
}

/// Reads `GPU-I:05` and `GPU-I:05 GPU-CI:02`.
fn place(words: &str) -> Option<(u32, Option<u32>)> {
    let mut words = words.split_whitespace();
    let gpu_instance = words.next()?.strip_prefix("GPU-I:")?.parse().ok()?;
    let compute_instance = match words.next() {
        Some(word) => Some(word.strip_prefix("GPU-CI:")?.parse().ok()?),
        None => None,
    };
    words
        .next()
        .is_none()
        .then_some((gpu_instance, compute_instance))
}

/// One MIG instance of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigInstance {
    pub uuid: DeviceUuid,
    pub gpu_instance: u32,
    pub compute_instance: Option<u32>,
    /// As in `1g.10gb`.
    pub profile: String,
    /// What of the frame buffer is its own.
    pub memory_bytes: Option<u64>,
}

/// Which part of which GPU a MIG instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    pub gpu: DeviceUuid,
    pub gpu_instance: u32,
    pub compute_instance: Option<u32>,
    /// As in `1g.10gb`.
    pub profile: String,
}

/// The rest of what NVML states of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Whether it is cut up into MIG instances; `None`: it can't be.
    pub mig_mode: Option<bool>,
    pub power: PowerLimits,
    pub pcie: PcieLimits,
    /// By link number; empty on a board without NVLink.
    pub nvlinks: Vec<NvLink>,
    /// The other GPUs of the node, in the order of their UUIDs.
    pub peers: Vec<Peer>,
    /// CPUs that are near, as a list (`0-31,64-95`).
    pub cpu_affinity: Option<String>,
    pub numa_node: Option<u32>,
    /// Absent on a board that is on no NVSwitch fabric.
    pub fabric: Option<Fabric>,
}

/// Power limits that can be set, in mW.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerLimits {
    pub min_mw: Option<u32>,
    pub max_mw: Option<u32>,
    pub default_mw: Option<u32>,
}

/// What board and slot can do together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcieLimits {
    pub generation_max: Option<u32>,
    pub width_max: Option<u32>,
}

/// One NVLink of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvLink {
    pub link: u32,
    /// As NVML numbers it.
    pub version: Option<u32>,
    /// `gpu`, `switch`, `cpu`; `None` where NVML does not know, or the link goes nowhere.
    pub remote: Option<String>,
    pub remote_pci: Option<PciAddress>,
    /// The number that the link has there: of an NVSwitch, the port.
    pub remote_link: Option<u32>,
}

impl NvLink {
    /// Whether what NVML tells of it leaves open that it ends at that port of that NVSwitch. Of a link that is down it
    /// tells nothing.
    fn may_end_at(&self, switch: PciAddress, port: u32) -> bool {
        let remote = self.remote.as_deref();
        remote.is_none_or(|remote| remote == "switch")
            && self.remote_pci.is_none_or(|pci| pci == switch)
            && self.remote_link.is_none_or(|link| link == port)
    }
}

/// How near another GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uuid: DeviceUuid,
    /// What the way between them goes through, in the words of `nvidia-smi topo -m`: `internal` (one board),
    /// `PIX`, `PXB`, `PHB`, `NODE`, `SYS`.
    pub path: String,
}

/// The NVSwitch fabric that a GPU is part of, once it has registered there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// `not-started`, `in-progress`, `completed`.
    pub state: String,
    /// As a UUID; with `clique`, GPUs that agree in both reach each other's memory. Absent until completed.
    pub cluster_uuid: Option<String>,
    pub clique: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_up() -> DeviceInfo {
        let mig = |uuid: &str, gpu_instance, compute_instance| MigInstance {
            uuid: DeviceUuid::new(uuid),
            gpu_instance,
            compute_instance: Some(compute_instance),
            profile: "1g.10gb".to_owned(),
            memory_bytes: Some(10 << 30),
        };
        DeviceInfo {
            mig: vec![mig("MIG-a", 5, 0), mig("MIG-b", 5, 1), mig("MIG-c", 7, 0)],
            index: Some(3),
            ..DeviceInfo::bare(DeviceUuid::new("GPU-0"))
        }
    }

    #[track_caller]
    fn check(words: &str, expected: &[&str]) {
        let info = cut_up();
        let named = info.instances_named(words).into_iter();
        assert_eq!(
            named.map(|mig| mig.uuid.as_str()).collect::<Vec<_>>(),
            expected,
            "{words}"
        );
    }

    #[test]
    fn n9_an_instance_is_named_by_its_uuid_or_its_place() {
        check("MIG-b", &["MIG-b"]);
        check("GPU-I:05 GPU-CI:01", &["MIG-b"]);
        check("GPU-I:05", &["MIG-a", "MIG-b"]);
        check("GPU-I:05 GPU-CI:09", &["MIG-a", "MIG-b"]);
        check("GPU-I:07", &["MIG-c"]);
        check("GPU-I:06", &[]);
        check("MIG-gone", &[]);
        check("GPU-I:x", &[]);
        check("", &[]);
    }

    #[test]
    fn n9_an_instance_is_a_device_with_a_parent() {
        let info = cut_up();
        let device = info.instance(&info.mig[2]);
        let parent = device.parent.expect("a parent");
        assert_eq!((parent.gpu.as_str(), parent.gpu_instance), ("GPU-0", 7));
        assert_eq!(device.uuid.as_str(), "MIG-c");
        assert_eq!((device.index, device.memory_bytes), (None, Some(10 << 30)));
        assert!(device.mig.is_empty());
    }

    /// A GPU whose links lead to the ports of one NVSwitch; `None`: the link is down.
    fn wired(ports: &[Option<u32>]) -> DeviceInfo {
        let link = |(link, port): (usize, &Option<u32>)| NvLink {
            link: link as u32,
            version: None,
            remote: port.map(|_| "switch".to_owned()),
            remote_pci: port.map(|_| SWITCH.parse().expect("an address")),
            remote_link: *port,
        };
        let mut info = DeviceInfo::bare(DeviceUuid::new("GPU-0"));
        info.hardware.nvlinks = ports.iter().enumerate().map(link).collect();
        info
    }

    const SWITCH: &str = "0000:07:00.0";

    #[test]
    fn n4_a_gpu_is_at_the_ports_that_its_links_name_and_may_be_where_one_is_down() {
        let switch = SWITCH.parse().expect("an address");
        let other = "0000:08:00.0".parse().expect("an address");
        let up = wired(&[Some(30), Some(31)]);
        assert!(up.is_behind(switch) && !up.is_behind(other));
        assert!(up.may_be_at(switch, 30) && up.may_be_at(switch, 31));
        assert!(!up.may_be_at(switch, 32) && !up.may_be_at(other, 30));
        let half = wired(&[Some(30), None]);
        assert!(half.is_at(switch, 30) && !half.is_at(switch, 32));
        assert!(half.may_be_at(switch, 32), "nobody knows where that leads");
        let mut untold = wired(&[Some(30)]);
        untold.hardware.nvlinks[0].remote_link = None;
        assert!(untold.may_be_at(switch, 32));
        let peer = NvLink {
            remote: Some("gpu".to_owned()),
            remote_pci: None,
            ..untold.hardware.nvlinks[0].clone()
        };
        let mut mixed = up.clone();
        mixed.hardware.nvlinks.push(peer);
        assert!(!mixed.may_be_at(switch, 32), "that one leads to a GPU");
    }

    #[test]
    fn n4_where_a_link_leads_is_known_while_it_is_down() {
        let before = wired(&[Some(30), Some(31)]);
        let mut down = wired(&[Some(30), None]);
        down.keep_wiring(&before);
        assert_eq!(down.hardware, before.hardware);
        let mut moved = DeviceInfo {
            pci: "0000:1b:00.0".parse().ok(),
            ..wired(&[None])
        };
        moved.keep_wiring(&before);
        assert_eq!(moved.hardware.nvlinks[0].remote_link, None, "another slot");
    }
}
