//! NVLink: state, what is at the other end, errors.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEnableState_t, nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH, nvmlIntNvLinkDeviceType_t,
    nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_COUNT,
    nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_P2P_ATOMICS,
    nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_P2P_SUPPORTED,
    nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_VALID, nvmlNvLinkCapability_t,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY,
    nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY, nvmlNvLinkErrorCounter_t,
    nvmlPciInfo_t,
};

use super::code::{self, Code};
use super::{Out, fixed, flag, on_device, on_gpu, put, supported};
use crate::node::{Gpu, Link, Node};
use crate::profile::{NvLink, PciSlot, Profile};

/// From Blackwell on the old counters are gone; field values took their place.
const COUNTERS_BEFORE: u32 = 5;
/// Device id and vendor of an NVSwitch, as the PCI id database has the third generation.
const SWITCH_ID: c_uint = 0x22a3_10de;

/// NVLink of a board that has it, and one link.
pub(super) fn link<'a>(
    profile: &'a Profile,
    gpu: &'a Gpu,
    number: c_uint,
) -> Result<(&'a NvLink, &'a Link), Code> {
    let nvlink = supported(profile.nvlink.as_ref())?;
    let number = usize::try_from(number).map_err(|_| code::INVALID_ARGUMENT)?;
    let link = gpu.links.get(number).ok_or(code::INVALID_ARGUMENT)?;
    Ok((nvlink, link))
}

fn error_counter(
    nvlink: &NvLink,
    link: &Link,
    counter: nvmlNvLinkErrorCounter_t,
) -> Result<c_ulonglong, Code> {
    if nvlink.version >= COUNTERS_BEFORE {
        return Err(code::NOT_SUPPORTED);
    }
    match counter {
        nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => Ok(link.replays),
        nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => Ok(link.recoveries),
        nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => Ok(link.crc_flit),
        nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA => Ok(link.crc_data),
        nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA => Ok(link.ecc_data),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

/// What a link that is up leads to.
enum Remote {
    Switch(PciSlot),
    /// In another tray: it has no PCI address here.
    FarSwitch,
    Gpu(PciSlot),
}

fn remote(node: &Node, gpu: &Gpu, number: c_uint) -> Result<Remote, Code> {
    let (nvlink, link) = link(node.profile, gpu, number)?;
    if !link.up {
        return Err(code::NOT_SUPPORTED);
    }
    if nvlink.peers {
        // As in a cube: each pair of links goes along one of three axes.
        let peer = gpu.identity.index ^ (1 << (number % 3));
        let peer = node.gpu(peer).ok_or(code::NOT_SUPPORTED)?;
        return Ok(Remote::Gpu(peer.identity.pci));
    }
    let number = usize::try_from(number).map_err(|_| code::INVALID_ARGUMENT)?;
    let switches = nvlink.switches.iter().copied().cycle();
    Ok(match switches.take(gpu.links.len()).nth(number) {
        Some(bus) => Remote::Switch(PciSlot { domain: 0, bus }),
        None => Remote::FarSwitch,
    })
}

fn remote_pci(node: &Node, gpu: &Gpu, number: c_uint) -> Result<nvmlPciInfo_t, Code> {
    let (pci, device_id) = match remote(node, gpu, number)? {
        Remote::Switch(pci) => (pci, SWITCH_ID),
        Remote::Gpu(pci) => (pci, node.profile.pci.device_id),
        Remote::FarSwitch => return Err(code::NOT_SUPPORTED),
    };
    Ok(nvmlPciInfo_t {
        busIdLegacy: fixed(&pci.bus_id_legacy()),
        domain: pci.domain,
        bus: pci.bus.into(),
        device: 0,
        pciDeviceId: device_id,
        pciSubSystemId: 0,
        busId: fixed(&pci.bus_id()),
    })
}

exports! {
    fn nvmlDeviceGetNvLinkState(
        device: nvmlDevice_t,
        number: c_uint,
        active: Out<'_, nvmlEnableState_t>,
    ) {
        let up = on_gpu(CALL, device, |profile, gpu| Ok(link(profile, gpu, number)?.1.up))?;
        put(active, flag(up))
    }

    fn nvmlDeviceGetNvLinkVersion(
        device: nvmlDevice_t,
        number: c_uint,
        version: Out<'_, c_uint>,
    ) {
        let read = on_gpu(CALL, device, |profile, gpu| Ok(link(profile, gpu, number)?.0.version))?;
        put(version, read)
    }

    fn nvmlDeviceGetNvLinkCapability(
        device: nvmlDevice_t,
        number: c_uint,
        capability: nvmlNvLinkCapability_t,
        has: Out<'_, c_uint>,
    ) {
        let read = on_gpu(CALL, device, |profile, gpu| {
            link(profile, gpu, number)?;
            match capability {
                nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_P2P_SUPPORTED
                | nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_P2P_ATOMICS
                | nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_VALID => Ok(true),
                nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_COUNT.. => Err(code::INVALID_ARGUMENT),
                _ => Ok(false),
            }
        })?;
        put(has, flag(read))
    }

    fn nvmlDeviceGetNvLinkErrorCounter(
        device: nvmlDevice_t,
        number: c_uint,
        counter: nvmlNvLinkErrorCounter_t,
        value: Out<'_, c_ulonglong>,
    ) {
        let read = on_gpu(CALL, device, |profile, gpu| {
            let (nvlink, link) = link(profile, gpu, number)?;
            error_counter(nvlink, link, counter)
        })?;
        put(value, read)
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(
        device: nvmlDevice_t,
        number: c_uint,
        kind: Out<'_, nvmlIntNvLinkDeviceType_t>,
    ) {
        let read = on_device(CALL, device, |node, gpu, _| remote(node, gpu, number))?;
        put(kind, match read {
            Remote::Gpu(_) => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            Remote::Switch(_) | Remote::FarSwitch => {
                nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH
            }
        })
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
        device: nvmlDevice_t,
        number: c_uint,
        pci: Out<'_, nvmlPciInfo_t>,
    ) {
        put(pci, on_device(CALL, device, |node, gpu, _| remote_pci(node, gpu, number))?)
    }
}
