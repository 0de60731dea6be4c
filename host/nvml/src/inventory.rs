//! What NVML states about a GPU. What a device does not tell is absent, never zero.

use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::limits::NVML_DEVICES_MAX;
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use crate::call::{CallFailed, Meaning, called};
use crate::library::Library;
use crate::raw::{self, DeviceHandle};

/// `nvmlDevice…MigMode` of a GPU that is cut up.
const MIG_ENABLED: u32 = 1;

/// A GPU that was asked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) handle: DeviceHandle,
    pub(crate) info: DeviceInfo,
}

/// The GPUs of a node as NVML has them now.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) found: Vec<Found>,
    /// Indices of GPUs that would not even tell their UUID; to be asked again.
    pub(crate) mute: Vec<u32>,
}

/// # Errors
/// Where NVML itself does not work; one GPU that does not answer is no error.
pub(crate) fn take(library: &Library) -> Result<Inventory, CallFailed> {
    let count = called("nvmlDeviceGetCount_v2", library.nvml().device_count())?;
    let mut inventory = Inventory::default();
    let gpus_max = u32::try_from(NVML_DEVICES_MAX).unwrap_or(u32::MAX);
    for index in 0..count.min(gpus_max) {
        match at_index(library, index) {
            Ok(found) => inventory.found.push(found),
            Err(failed) if failed.meaning == Meaning::DriverGone => return Err(failed),
            Err(failed) => {
                tracing::warn!(index, "GPU can't be listed, will be asked again: {failed}");
                inventory.mute.push(index);
            }
        }
    }
    Ok(inventory)
}

/// The GPU that NVML has at an index.
pub(crate) fn at_index(library: &Library, index: u32) -> Result<Found, CallFailed> {
    let device = called(
        "nvmlDeviceGetHandleByIndex_v2",
        library.nvml().device_by_index(index),
    )?;
    describe(library, &device)
}

pub(crate) fn describe(library: &Library, device: &Device<'_>) -> Result<Found, CallFailed> {
    let uuid = called("nvmlDeviceGetUUID", device.uuid())?;
    let mut info = DeviceInfo::bare(DeviceUuid::new(&uuid));
    info.simulated = library.simulated;
    info.product = told("nvmlDeviceGetName", device.name())?.unwrap_or_default();
    info.serial = told("nvmlDeviceGetSerial", device.serial())?.unwrap_or_default();
    info.index = told("nvmlDeviceGetIndex", device.index())?;
    info.minor = told("nvmlDeviceGetMinorNumber", device.minor_number())?;
    info.pci =
        told("nvmlDeviceGetPciInfo_v3", device.pci_info())?.and_then(|pci| address(&pci.bus_id));
    info.architecture = told("nvmlDeviceGetArchitecture", device.architecture())?
        .filter(|architecture| *architecture != DeviceArchitecture::Unknown)
        .map(|architecture| architecture.to_string())
        .unwrap_or_default();
    info.memory_bytes =
        told("nvmlDeviceGetMemoryInfo_v2", raw::memory(device))?.map(|memory| memory.total);
    info.driver_version = driver_version(library.nvml())?;
    info.cuda_version = cuda_version(library.nvml())?;
    info.mig = mig(device)?;
    Ok(Found {
        handle: DeviceHandle::of(device),
        info,
    })
}

/// An answer that a GPU may lack. A GPU that goes away meanwhile has no inventory at all.
fn told<T>(call: &'static str, result: Result<T, NvmlError>) -> Result<Option<T>, CallFailed> {
    match called(call, result) {
        Ok(value) => Ok(Some(value)),
        Err(failed) => match failed.meaning {
            Meaning::Lost | Meaning::DriverGone => Err(failed),
            Meaning::Unsupported => Ok(None),
            Meaning::TimedOut | Meaning::Failed => {
                tracing::debug!("left out of the inventory: {failed}");
                Ok(None)
            }
        },
    }
}

fn address(bus_id: &str) -> Option<PciAddress> {
    let address = bus_id.parse();
    if let Err(error) = &address {
        tracing::warn!("NVML gave a strange PCI address: {error}");
    }
    address.ok()
}

/// As in `580.82.07`; empty where NVML does not tell.
pub(crate) fn driver_version(nvml: &Nvml) -> Result<String, CallFailed> {
    let version = told("nvmlSystemGetDriverVersion", nvml.sys_driver_version())?;
    Ok(version.unwrap_or_default())
}

/// As in `13.0`; empty where libcuda, which NVML asks, is not installed.
fn cuda_version(nvml: &Nvml) -> Result<String, CallFailed> {
    let version = told(
        "nvmlSystemGetCudaDriverVersion_v2",
        nvml.sys_cuda_driver_version(),
    )?;
    let text = |version| {
        format!(
            "{}.{}",
            cuda_driver_version_major(version),
            cuda_driver_version_minor(version)
        )
    };
    Ok(version.map(text).unwrap_or_default())
}

fn mig(device: &Device<'_>) -> Result<Vec<MigInstance>, CallFailed> {
    let mode = told("nvmlDeviceGetMigMode", device.mig_mode())?;
    if mode.is_none_or(|mode| mode.current != MIG_ENABLED) {
        return Ok(Vec::new());
    }
    let slots = told("nvmlDeviceGetMaxMigDeviceCount", device.mig_device_count())?;
    let mut instances = Vec::new();
    for slot in 0..slots.unwrap_or_default() {
        // NOT_FOUND: the slot is free.
        let instance = device.mig_device_by_index(slot);
        if matches!(instance, Err(NvmlError::NotFound)) {
            continue;
        }
        if let Some(instance) = told("nvmlDeviceGetMigDeviceHandleByIndex", instance)? {
            instances.extend(mig_instance(&instance)?);
        }
    }
    Ok(instances)
}

fn mig_instance(instance: &Device<'_>) -> Result<Option<MigInstance>, CallFailed> {
    let uuid = told("nvmlDeviceGetUUID", instance.uuid())?;
    let gpu_instance = told("nvmlDeviceGetGpuInstanceId", raw::gpu_instance(instance))?;
    let compute_instance = told(
        "nvmlDeviceGetComputeInstanceId",
        raw::compute_instance(instance),
    )?;
    let name = told("nvmlDeviceGetName", instance.name())?.unwrap_or_default();
    let named = uuid.zip(gpu_instance);
    Ok(named.map(|(uuid, gpu_instance)| MigInstance {
        uuid: DeviceUuid::new(&uuid),
        gpu_instance,
        compute_instance,
        profile: mig_profile(&name).to_owned(),
    }))
}

/// The profile is the last word of a MIG device's name: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
fn mig_profile(name: &str) -> &str {
    name.split_once(" MIG ").map_or("", |(_, profile)| profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_what_follows_mig() {
        assert_eq!(mig_profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), "1g.10gb");
        assert_eq!(
            mig_profile("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"),
            "1c.3g.20gb"
        );
        assert_eq!(mig_profile("NVIDIA H100 80GB HBM3"), "");
    }

    #[test]
    fn what_a_gpu_does_not_have_is_absent_and_a_lost_one_is_an_error() {
        assert_eq!(told("nvmlX", Ok(1)).unwrap(), Some(1));
        assert_eq!(
            told::<u32>("nvmlX", Err(NvmlError::NotSupported)).unwrap(),
            None
        );
        assert_eq!(told::<u32>("nvmlX", Err(NvmlError::Unknown)).unwrap(), None);
        let failed = told::<u32>("nvmlX", Err(NvmlError::GpuLost)).unwrap_err();
        assert_eq!(failed.meaning, Meaning::Lost);
    }
}
