//! Which GPUs there are, and who each is.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlBrandType_enum_NVML_BRAND_NVIDIA, nvmlBrandType_t, nvmlDevice_t, nvmlDeviceArchitecture_t,
    nvmlPciInfo_t, nvmlPciInfoExt_v1_t,
};

use super::code::{self, Code};
use super::{
    Out, fill, fixed, handle, mig_handle, node, on_device, on_gpu, present, put, put_text,
    struct_version, text,
};
use crate::node::{Gpu, Instance, Node};
use crate::profile::{PciSlot, Profile};

/// PCI class of a 3D controller.
const PCI_DISPLAY: c_uint = 3;
const PCI_3D: c_uint = 2;

fn count(call: &str, count: Out<'_, c_uint>) -> Result<(), Code> {
    let gpus = node(call, None)?.gpus.len();
    put(count, c_uint::try_from(gpus).unwrap_or(c_uint::MAX))
}

fn by_index(call: &str, index: c_uint, device: Out<'_, nvmlDevice_t>) -> Result<(), Code> {
    find(call, device, code::INVALID_ARGUMENT, |gpu| {
        gpu.identity.index == index
    })
}

fn find(
    call: &str,
    device: Out<'_, nvmlDevice_t>,
    otherwise: Code,
    is_it: impl Fn(&Gpu) -> bool,
) -> Result<(), Code> {
    let node = node(call, None)?;
    let found = node.gpus.iter().find(|gpu| is_it(gpu)).ok_or(otherwise)?;
    if found.lost {
        return Err(code::GPU_IS_LOST);
    }
    put(device, handle(found))
}

/// The MIG device of that UUID.
fn find_mig(call: &str, uuid: &str, device: Out<'_, nvmlDevice_t>) -> Result<(), Code> {
    let node = node(call, None)?;
    let found = node.migs().find(|(_, instance)| instance.uuid == uuid);
    let (gpu, instance) = found.ok_or(code::NOT_FOUND)?;
    if gpu.lost {
        return Err(code::GPU_IS_LOST);
    }
    put(device, mig_handle(instance))
}

fn name(node: &Node, instance: Option<&Instance>) -> String {
    let name = &node.profile.name;
    let cut =
        instance.and_then(|instance| node.profile.mig.as_ref()?.profiles.get(instance.profile));
    cut.map_or_else(|| name.clone(), |cut| format!("{name} MIG {}", cut.name))
}

/// # Safety
/// `pci_bus_id` is null or a C string.
unsafe fn by_pci(
    call: &str,
    pci_bus_id: *const c_char,
    device: Out<'_, nvmlDevice_t>,
) -> Result<(), Code> {
    present(call)?;
    // SAFETY: this function's own contract.
    let slot = PciSlot::parse(unsafe { text(pci_bus_id) }?).ok_or(code::INVALID_ARGUMENT)?;
    find(call, device, code::NOT_FOUND, |gpu| {
        gpu.identity.pci == slot
    })
}

fn pci_info(profile: &Profile, gpu: &Gpu) -> nvmlPciInfo_t {
    let pci = gpu.identity.pci;
    nvmlPciInfo_t {
        busIdLegacy: fixed(&pci.bus_id_legacy()),
        domain: pci.domain,
        bus: pci.bus.into(),
        device: 0,
        pciDeviceId: profile.pci.device_id,
        pciSubSystemId: profile.pci.subsystem_id,
        busId: fixed(&pci.bus_id()),
    }
}

/// # Safety
/// `buffer` is null or has room for `length` bytes.
unsafe fn text_of(
    call: &str,
    device: nvmlDevice_t,
    buffer: *mut c_char,
    length: c_uint,
    read: impl FnOnce(&Profile, &Gpu) -> String,
) -> Result<(), Code> {
    let text = on_gpu(call, device, |profile, gpu| Ok(read(profile, gpu)))?;
    // SAFETY: this function's own contract.
    unsafe { put_text(buffer, length, &text) }
}

exports! {
    fn nvmlDeviceGetCount(device_count: Out<'_, c_uint>) {
        count(CALL, device_count)
    }

    fn nvmlDeviceGetCount_v2(device_count: Out<'_, c_uint>) {
        count(CALL, device_count)
    }

    fn nvmlDeviceGetHandleByIndex(index: c_uint, device: Out<'_, nvmlDevice_t>) {
        by_index(CALL, index, device)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Out<'_, nvmlDevice_t>) {
        by_index(CALL, index, device)
    }

    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: Out<'_, nvmlDevice_t>) {
        present(CALL)?;
        // SAFETY: nvml.h: `uuid` is a C string.
        let uuid = unsafe { text(uuid) }?;
        if uuid.starts_with("MIG-") {
            return find_mig(CALL, uuid, device);
        }
        find(CALL, device, code::NOT_FOUND, |gpu| gpu.identity.uuid == uuid)
    }

    fn nvmlDeviceGetHandleByPciBusId(pci_bus_id: *const c_char, device: Out<'_, nvmlDevice_t>) {
        // SAFETY: nvml.h: `pci_bus_id` is a C string.
        unsafe { by_pci(CALL, pci_bus_id, device) }
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(pci_bus_id: *const c_char, device: Out<'_, nvmlDevice_t>) {
        // SAFETY: nvml.h: `pci_bus_id` is a C string.
        unsafe { by_pci(CALL, pci_bus_id, device) }
    }

    fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) {
        let read = on_device(CALL, device, |_, gpu, instance| {
            Ok(instance.map_or(&gpu.identity.uuid, |instance| &instance.uuid).clone())
        })?;
        // SAFETY: nvml.h: `uuid` has room for `length` bytes.
        unsafe { put_text(uuid, length, &read) }
    }

    fn nvmlDeviceGetName(device: nvmlDevice_t, buffer: *mut c_char, length: c_uint) {
        let read = on_device(CALL, device, |node, _, instance| Ok(name(node, instance)))?;
        // SAFETY: nvml.h: `buffer` has room for `length` bytes.
        unsafe { put_text(buffer, length, &read) }
    }

    fn nvmlDeviceGetSerial(device: nvmlDevice_t, serial: *mut c_char, length: c_uint) {
        // SAFETY: nvml.h: `serial` has room for `length` bytes.
        unsafe { text_of(CALL, device, serial, length, |_, gpu| gpu.identity.serial.clone()) }
    }

    fn nvmlDeviceGetVbiosVersion(device: nvmlDevice_t, version: *mut c_char, length: c_uint) {
        // SAFETY: nvml.h: `version` has room for `length` bytes.
        unsafe { text_of(CALL, device, version, length, |profile, _| profile.vbios.clone()) }
    }

    fn nvmlDeviceGetBoardPartNumber(device: nvmlDevice_t, number: *mut c_char, length: c_uint) {
        // SAFETY: nvml.h: `number` has room for `length` bytes.
        unsafe { text_of(CALL, device, number, length, |profile, _| profile.part_number.clone()) }
    }

    fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: Out<'_, c_uint>) {
        put(index, on_gpu(CALL, device, |_, gpu| Ok(gpu.identity.index))?)
    }

    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: Out<'_, c_uint>) {
        put(minor, on_gpu(CALL, device, |_, gpu| Ok(gpu.identity.index))?)
    }

    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: Out<'_, nvmlPciInfo_t>) {
        put(pci, on_gpu(CALL, device, |profile, gpu| Ok(pci_info(profile, gpu)))?)
    }

    fn nvmlDeviceGetPciInfoExt(device: nvmlDevice_t, pci: Option<&mut nvmlPciInfoExt_v1_t>) {
        let read = on_gpu(CALL, device, |profile, gpu| Ok(pci_info(profile, gpu)))?;
        fill(pci, |pci| pci.version, nvmlPciInfoExt_v1_t {
            version: struct_version::<nvmlPciInfoExt_v1_t>(1),
            domain: read.domain,
            bus: read.bus,
            device: read.device,
            pciDeviceId: read.pciDeviceId,
            pciSubSystemId: read.pciSubSystemId,
            baseClass: PCI_DISPLAY,
            subClass: PCI_3D,
            busId: read.busId,
        })
    }

    /// The slot on the board, from 1.
    fn nvmlDeviceGetModuleId(device: nvmlDevice_t, module: Out<'_, c_uint>) {
        put(module, on_gpu(CALL, device, |_, gpu| Ok(gpu.identity.index % 8 + 1))?)
    }

    fn nvmlDeviceGetBrand(device: nvmlDevice_t, brand: Out<'_, nvmlBrandType_t>) {
        on_gpu(CALL, device, |_, _| Ok(()))?;
        put(brand, nvmlBrandType_enum_NVML_BRAND_NVIDIA)
    }

    fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, arch: Out<'_, nvmlDeviceArchitecture_t>) {
        put(arch, on_gpu(CALL, device, |profile, _| Ok(profile.architecture.code()))?)
    }

    fn nvmlDeviceGetNumGpuCores(device: nvmlDevice_t, cores: Out<'_, c_uint>) {
        put(cores, on_gpu(CALL, device, |profile, _| Ok(profile.cores))?)
    }

    fn nvmlDeviceGetCudaComputeCapability(
        device: nvmlDevice_t,
        major: Out<'_, c_int>,
        minor: Out<'_, c_int>,
    ) {
        let capability = on_gpu(CALL, device, |profile, _| Ok(profile.compute_capability))?;
        put(major, capability.0)?;
        put(minor, capability.1)
    }
}
