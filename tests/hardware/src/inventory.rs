//! The inventory, field by field, beside nvidia-smi's.

use device_api_core::device::DeviceInfo;

use crate::report::{Line, Section};
use crate::smi::{Smi, SmiGpu};
use crate::source::Snapshot;

/// nvidia-smi shows whole MiB.
const MIB: u64 = 1 << 20;

/// # Errors
/// None: what differs is in the section.
pub(crate) fn compare(snapshot: &Snapshot, smi: &Smi) -> Section {
    let ours: Vec<&str> = snapshot.devices.keys().map(String::as_str).collect();
    let mut theirs: Vec<&str> = smi.gpus.iter().map(SmiGpu::uuid).collect();
    theirs.sort_unstable();
    let same = ours == theirs;
    let mut lines = vec![Line::of("GPUs", ours.join(" "), theirs.join(" "), same)];
    for (index, theirs) in smi.gpus.iter().enumerate() {
        let Some(ours) = snapshot.devices.get(theirs.uuid()) else {
            continue;
        };
        lines.extend(gpu(ours, theirs, index, smi));
    }
    Section {
        title: "Inventory".to_owned(),
        lines,
    }
}

fn gpu(ours: &DeviceInfo, theirs: &SmiGpu, index: usize, smi: &Smi) -> Vec<Line> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let told = |paths: &[&str]| theirs.told(paths).map(str::to_owned);
    let line = |what: &str, ours: Option<String>, theirs: Option<String>| {
        Line::same(format!("GPU {index} {what}"), ours, theirs)
    };
    let mib = ours.memory_bytes.map(|bytes| (bytes / MIB).to_string());
    let index_told = ours.index.map(|index| index.to_string());
    let minor = ours.minor.map(|minor| minor.to_string());
    let mut lines = vec![
        line("product", text(&ours.product), told(&["product_name"])),
        line(
            "architecture",
            text(&ours.architecture),
            told(&["product_architecture"]),
        ),
        line("serial", text(&ours.serial), told(&["serial"])),
        line("index", index_told, Some(index.to_string())),
        line("minor", minor, told(&["minor_number"])),
        line("PCI", ours.pci.map(|pci| pci.to_string()), pci(theirs)),
        line(
            "memory, MiB",
            mib,
            whole(theirs.number(&["fb_memory_usage/total"])),
        ),
        line("driver", text(&ours.driver_version), smi.driver.clone()),
        line("CUDA", text(&ours.cuda_version), smi.cuda.clone()),
    ];
    lines.extend(
        hardware(ours, theirs)
            .into_iter()
            .map(|(what, ours, theirs)| line(what, ours, theirs)),
    );
    lines.push(instances(ours, theirs, index));
    lines
}

/// The address in our form: nvidia-smi's domain has eight digits.
fn pci(theirs: &SmiGpu) -> Option<String> {
    let told = theirs.told(&["pci/pci_bus_id"])?;
    let address = told.parse::<device_api_core::ids::PciAddress>();
    Some(address.map_or_else(|_| told.to_owned(), |address| address.to_string()))
}

type Field = (&'static str, Option<String>, Option<String>);

fn hardware(ours: &DeviceInfo, theirs: &SmiGpu) -> Vec<Field> {
    let hardware = &ours.hardware;
    let watts = |mw: Option<u32>| mw.map(|mw| format!("{:.2}", f64::from(mw) / 1000.0));
    let power = |name: &str| {
        let paths = [
            format!("gpu_power_readings/{name}"),
            format!("power_readings/{name}"),
        ];
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        theirs.number(&paths).map(|watts| format!("{watts:.2}"))
    };
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let link = |name: &str| whole(theirs.number(&[&format!("pci/pci_gpu_link_info/{name}")]));
    let mig = hardware
        .mig_mode
        .map(|is_on| if is_on { "Enabled" } else { "Disabled" });
    let fabric = hardware.fabric.as_ref();
    let fabric_told = theirs.told(&["fabric/state"]);
    vec![
        (
            "power limit min, W",
            watts(hardware.power.min_mw),
            power("min_power_limit"),
        ),
        (
            "power limit max, W",
            watts(hardware.power.max_mw),
            power("max_power_limit"),
        ),
        (
            "power limit default, W",
            watts(hardware.power.default_mw),
            power("default_power_limit"),
        ),
        (
            "PCIe generation max",
            number(hardware.pcie.generation_max),
            link("pcie_gen/max_link_gen"),
        ),
        (
            "PCIe width max",
            number(hardware.pcie.width_max),
            link("link_widths/max_link_width"),
        ),
        (
            "MIG mode",
            mig.map(str::to_owned),
            theirs.told(&["mig_mode/current_mig"]).map(str::to_owned),
        ),
        (
            "fabric state",
            fabric.map(|fabric| fabric.state.clone()),
            fabric_told.map(|state| state.to_lowercase().replace(' ', "-")),
        ),
        (
            "fabric cluster",
            fabric.and_then(|fabric| fabric.cluster_uuid.clone()),
            fabric_told
                .and(theirs.told(&["fabric/cluster_uuid", "fabric/clusterUuid"]))
                .map(str::to_owned),
        ),
        (
            "fabric clique",
            fabric
                .and_then(|fabric| fabric.clique)
                .map(|clique| clique.to_string()),
            fabric_told
                .and(theirs.told(&["fabric/clique_id", "fabric/cliqueId"]))
                .map(str::to_owned),
        ),
    ]
}

/// MIG instances, by GPU instance and compute instance.
fn instances(ours: &DeviceInfo, theirs: &SmiGpu, index: usize) -> Line {
    let pair = |gpu: &str, compute: &str| format!("{gpu}/{compute}");
    let mut told: Vec<String> = ours
        .mig
        .iter()
        .map(|instance| {
            let compute = instance.compute_instance.map(|id| id.to_string());
            pair(
                &instance.gpu_instance.to_string(),
                &compute.unwrap_or_default(),
            )
        })
        .collect();
    let gpus = theirs.every("mig_devices/mig_device/gpu_instance_id");
    let computes = theirs.every("mig_devices/mig_device/compute_instance_id");
    let mut held_against: Vec<String> = gpus
        .iter()
        .zip(computes)
        .map(|(gpu, compute)| pair(gpu, compute))
        .collect();
    told.sort_unstable();
    held_against.sort_unstable();
    let is_same = told == held_against;
    Line::of(
        format!("GPU {index} MIG instances"),
        told.join(" "),
        held_against.join(" "),
        is_same,
    )
}

fn whole(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.0}"))
}
