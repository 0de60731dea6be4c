//! The inventory of a GPU as the native dialect shows it.

use device_api_core::device::{Fabric, Hardware, NvLink, PcieLimits, Peer, PowerLimits};
use device_api_proto::native as proto;

/// `None`: nobody has told of it.
pub(super) fn message(hardware: &Hardware) -> Option<proto::GpuHardware> {
    if *hardware == Hardware::default() {
        return None;
    }
    let Hardware {
        mig_mode,
        power,
        pcie,
        nvlinks,
        peers,
        cpu_affinity,
        numa_node,
        fabric,
    } = hardware;
    let PowerLimits {
        min_mw,
        max_mw,
        default_mw,
    } = power;
    let PcieLimits {
        generation_max,
        width_max,
    } = pcie;
    Some(proto::GpuHardware {
        mig_enabled: *mig_mode,
        power_limit_min_milliwatts: *min_mw,
        power_limit_max_milliwatts: *max_mw,
        power_limit_default_milliwatts: *default_mw,
        pcie_generation_max: *generation_max,
        pcie_width_max: *width_max,
        nvlinks: nvlinks.iter().map(nvlink).collect(),
        peers: peers.iter().map(peer).collect(),
        cpu_affinity: cpu_affinity.clone(),
        numa_node: *numa_node,
        fabric: fabric.as_ref().map(on_fabric),
    })
}

fn nvlink(nvlink: &NvLink) -> proto::NvLink {
    proto::NvLink {
        link: nvlink.link,
        version: nvlink.version,
        remote: nvlink.remote.clone(),
        remote_pci_address: nvlink.remote_pci.map(|pci| pci.to_string()),
        remote_link: nvlink.remote_link,
    }
}

fn peer(peer: &Peer) -> proto::GpuPeer {
    proto::GpuPeer {
        uuid: peer.uuid.to_string(),
        path: peer.path.clone(),
    }
}

fn on_fabric(fabric: &Fabric) -> proto::NvSwitchFabric {
    proto::NvSwitchFabric {
        state: fabric.state.clone(),
        cluster_uuid: fabric.cluster_uuid.clone(),
        clique: fabric.clique,
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::ids::DeviceUuid;

    use super::*;

    #[test]
    fn what_is_not_known_is_absent_and_never_zero() {
        assert_eq!(message(&Hardware::default()), None);
        let hardware = Hardware {
            mig_mode: Some(false),
            power: PowerLimits {
                min_mw: None,
                max_mw: Some(700_000),
                default_mw: None,
            },
            nvlinks: vec![NvLink {
                link: 0,
                version: None,
                remote: None,
                remote_pci: "0000:05:00.0".parse().ok(),
                remote_link: Some(30),
            }],
            peers: vec![Peer {
                uuid: DeviceUuid::new("GPU-1"),
                path: "PIX".to_owned(),
            }],
            fabric: Some(Fabric {
                state: "in-progress".to_owned(),
                cluster_uuid: None,
                clique: None,
            }),
            ..Hardware::default()
        };
        let shown = message(&hardware).expect("some of it is known");
        assert_eq!(shown.mig_enabled, Some(false), "it could be");
        assert_eq!(shown.power_limit_min_milliwatts, None);
        assert_eq!(shown.power_limit_max_milliwatts, Some(700_000));
        assert_eq!((shown.pcie_width_max, shown.numa_node), (None, None));
        let link = &shown.nvlinks[0];
        assert_eq!((link.link, link.version, &link.remote), (0, None, &None));
        assert_eq!(link.remote_pci_address.as_deref(), Some("0000:05:00.0"));
        assert_eq!(link.remote_link, Some(30));
        assert_eq!(
            (&*shown.peers[0].uuid, &*shown.peers[0].path),
            ("GPU-1", "PIX")
        );
        assert_eq!(shown.fabric.expect("there").clique, None);
    }
}
