//! What a GPU is made of and connected to, for programs and for people.

use device_api_proto::native::{GpuHardware, GpuPeer, NvLink, NvSwitchFabric};
use serde::Serialize;

/// In `-o json` and `-o yaml`; the rules are those of [`crate::view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HardwareView {
    #[serde(skip_serializing_if = "Option::is_none")]
    mig_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_limit_min_milliwatts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_limit_max_milliwatts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_limit_default_milliwatts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcie_generation_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcie_width_max: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nvlinks: Vec<NvLinkView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<PeerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_affinity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    numa_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fabric: Option<FabricView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NvLinkView {
    link: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_pci_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_link: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerView {
    uuid: String,
    path: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FabricView {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clique: Option<u32>,
}

impl From<&GpuHardware> for HardwareView {
    fn from(of: &GpuHardware) -> Self {
        Self {
            mig_enabled: of.mig_enabled,
            power_limit_min_milliwatts: of.power_limit_min_milliwatts,
            power_limit_max_milliwatts: of.power_limit_max_milliwatts,
            power_limit_default_milliwatts: of.power_limit_default_milliwatts,
            pcie_generation_max: of.pcie_generation_max,
            pcie_width_max: of.pcie_width_max,
            nvlinks: of.nvlinks.iter().map(NvLinkView::from).collect(),
            peers: of.peers.iter().map(PeerView::from).collect(),
            cpu_affinity: of.cpu_affinity.clone(),
            numa_node: of.numa_node,
            fabric: of.fabric.as_ref().map(FabricView::from),
        }
    }
}

impl From<&NvLink> for NvLinkView {
    fn from(of: &NvLink) -> Self {
        Self {
            link: of.link,
            version: of.version,
            remote: of.remote.clone(),
            remote_pci_address: of.remote_pci_address.clone(),
            remote_link: of.remote_link,
        }
    }
}

impl From<&GpuPeer> for PeerView {
    fn from(of: &GpuPeer) -> Self {
        Self {
            uuid: of.uuid.clone(),
            path: of.path.clone(),
        }
    }
}

impl From<&NvSwitchFabric> for FabricView {
    fn from(of: &NvSwitchFabric) -> Self {
        Self {
            state: of.state.clone(),
            cluster_uuid: of.cluster_uuid.clone(),
            clique: of.clique,
        }
    }
}

/// What is known of it, as facts to read; what is not is left out.
pub(crate) fn facts(of: &GpuHardware) -> Vec<(&'static str, String)> {
    let mig = of.mig_enabled.map(|is_on| if is_on { "on" } else { "off" });
    let mut facts = vec![
        ("MIG", mig.unwrap_or_default().to_owned()),
        ("Power limits", power(of)),
        ("PCIe", pcie(of)),
        ("CPUs", of.cpu_affinity.clone().unwrap_or_default()),
        ("NUMA node", number(of.numa_node)),
        ("Fabric", of.fabric.as_ref().map(fabric).unwrap_or_default()),
    ];
    facts.extend(of.nvlinks.iter().map(|link| ("NVLink", nvlink(link))));
    let peer = |peer: &GpuPeer| ("Peer", format!("{} {}", peer.path, peer.uuid));
    facts.extend(of.peers.iter().map(peer));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn number(number: Option<u32>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// As in `200 W to 700 W, 700 W by default`.
fn power(of: &GpuHardware) -> String {
    let watts = |milliwatts: u32| format!("{} W", f64::from(milliwatts) / 1e3);
    let range = match (of.power_limit_min_milliwatts, of.power_limit_max_milliwatts) {
        (Some(min), Some(max)) => Some(format!("{} to {}", watts(min), watts(max))),
        (Some(min), None) => Some(format!("{} at least", watts(min))),
        (None, Some(max)) => Some(format!("{} at most", watts(max))),
        (None, None) => None,
    };
    let default = of.power_limit_default_milliwatts;
    let default = default.map(|default| format!("{} by default", watts(default)));
    range
        .into_iter()
        .chain(default)
        .collect::<Vec<_>>()
        .join(", ")
}

/// As in `gen 5 x16 at most`.
fn pcie(of: &GpuHardware) -> String {
    let generation = of
        .pcie_generation_max
        .map(|number| format!("gen {number} "));
    let width = of.pcie_width_max.map(|lanes| format!("x{lanes} "));
    let both: String = generation.into_iter().chain(width).collect();
    if both.is_empty() {
        both
    } else {
        both + "at most"
    }
}

/// As in `completed, cluster …, clique 3`.
fn fabric(of: &NvSwitchFabric) -> String {
    let cluster = of
        .cluster_uuid
        .as_ref()
        .map(|uuid| format!(", cluster {uuid}"));
    let clique = of.clique.map(|number| format!(", clique {number}"));
    let parts = [Some(of.state.clone()), cluster, clique];
    parts.into_iter().flatten().collect()
}

/// As in `0: version 7, switch 0000:05:00.0 link 30`.
fn nvlink(of: &NvLink) -> String {
    let version = of.version.map(|version| format!("version {version}"));
    let there = of.remote_link.map(|link| format!("link {link}"));
    let ends = [
        of.remote.as_deref(),
        of.remote_pci_address.as_deref(),
        there.as_deref(),
    ];
    let ends: Vec<_> = ends.into_iter().flatten().collect();
    let to = (!ends.is_empty()).then(|| ends.join(" "));
    let known: Vec<_> = version.into_iter().chain(to).collect();
    let known = if known.is_empty() {
        "nothing is known of it".to_owned()
    } else {
        known.join(", ")
    };
    format!("{}: {known}", of.link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_told_and_nothing_else() {
        assert_eq!(facts(&GpuHardware::default()), []);
        let link = NvLink {
            link: 3,
            version: Some(7),
            remote: Some("switch".to_owned()),
            remote_pci_address: Some("0000:05:00.0".to_owned()),
            remote_link: Some(30),
        };
        let hardware = GpuHardware {
            mig_enabled: Some(false),
            power_limit_min_milliwatts: Some(200_000),
            power_limit_max_milliwatts: Some(700_500),
            pcie_generation_max: Some(5),
            pcie_width_max: Some(16),
            numa_node: Some(0),
            nvlinks: vec![link, NvLink::default()],
            peers: vec![GpuPeer {
                uuid: "GPU-2".to_owned(),
                path: "NODE".to_owned(),
            }],
            fabric: Some(NvSwitchFabric {
                state: "in-progress".to_owned(),
                ..NvSwitchFabric::default()
            }),
            ..GpuHardware::default()
        };
        let told: Vec<_> = facts(&hardware)
            .into_iter()
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        let expected = [
            "MIG: off",
            "Power limits: 200 W to 700.5 W",
            "PCIe: gen 5 x16 at most",
            "NUMA node: 0",
            "Fabric: in-progress",
            "NVLink: 3: version 7, switch 0000:05:00.0 link 30",
            "NVLink: 0: nothing is known of it",
            "Peer: NODE GPU-2",
        ];
        assert_eq!(told, expected);
        let value = serde_json::to_value(HardwareView::from(&hardware)).unwrap();
        assert_eq!(value["migEnabled"], false);
        assert_eq!(value["numaNode"], 0);
        assert!(
            value.get("powerLimitDefaultMilliwatts").is_none(),
            "{value}"
        );
    }
}
