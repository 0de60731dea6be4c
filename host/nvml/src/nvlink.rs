//! What NVML tells of a GPU's NVLinks, link by link.

use device_api_core::device::NvLink;
use device_api_core::signal::Value;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::field_id as field;
use nvml_wrapper_sys::bindings::{self as sys, NVML_NVLINK_MAX_LINKS};

use crate::call::CallFailed;
use crate::inventory::told;
use crate::queries::{Values, int, ints};
use crate::raw;

/// Errors of which there are counters up to Hopper: the field with their sum, and the counter of each link.
const ERRORS: [(u32, ErrorCounter); 4] = [
    (
        field::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
        ErrorCounter::DlCrcFlit,
    ),
    (
        field::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        ErrorCounter::DlCrcData,
    ),
    (
        field::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
        ErrorCounter::DlReplay,
    ),
    (
        field::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
        ErrorCounter::DlRecovery,
    ),
];

/// Errors that Blackwell counts, of each link.
const LATER_ERRORS: [u32; 4] = [
    field::NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS,
    field::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS,
    field::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS,
    field::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,
];

/// A link that the GPU does not have, or does not tell of.
fn is_absent(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::NotSupported | NvmlError::InvalidArg | NvmlError::FailedToLoadSymbol(_)
    )
}

/// Whether each link is up; those that the GPU does not have are left out.
fn links(device: &Device<'_>) -> Result<Vec<(u32, bool)>, NvmlError> {
    let mut links = Vec::new();
    for link in 0..NVML_NVLINK_MAX_LINKS {
        match device.link_wrapper_for(link).is_active() {
            Ok(active) => links.push((link, active)),
            Err(error @ NvmlError::FailedToLoadSymbol(_)) => return Err(error),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if links.is_empty() {
        return Err(NvmlError::NotSupported);
    }
    Ok(links)
}

/// How many there are, how many of them are up, and which.
pub(crate) fn states(device: &Device<'_>) -> Values {
    let links = links(device)?;
    let up = || links.iter().filter(|(_, active)| *active);
    let mask = up().fold(0_u64, |mask, (link, _)| mask | (1 << link));
    ints([links.len() as u64, up().count() as u64, mask])
}

/// Sums over all links; where the driver has none, they are added up here.
pub(crate) fn errors(device: &Device<'_>) -> Values {
    let totals = raw::fields(device, &ERRORS.each_ref().map(|(field, _)| (*field, 0)));
    let totals = match totals {
        Ok(totals) => totals,
        Err(error) if is_absent(&error) => ERRORS
            .each_ref()
            .map(|_| Err(NvmlError::NotSupported))
            .into(),
        Err(error) => return Err(error),
    };
    let total =
        |((_, counter), total): (&(u32, ErrorCounter), Result<Value, NvmlError>)| match total {
            Err(error) if is_absent(&error) => added_up(device, counter),
            total => total,
        };
    Ok(ERRORS.iter().zip(totals).map(total).collect())
}

fn added_up(device: &Device<'_>, counter: &ErrorCounter) -> Result<Value, NvmlError> {
    let mut sum: Option<u64> = None;
    for link in 0..NVML_NVLINK_MAX_LINKS {
        match device.link_wrapper_for(link).error_counter(*counter) {
            Ok(count) => sum = Some(sum.unwrap_or_default().saturating_add(count)),
            Err(error @ NvmlError::FailedToLoadSymbol(_)) => return Err(error),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    sum.map(int).ok_or(NvmlError::NotSupported)
}

/// The sums of what each link counts, all links and counters asked in one call.
pub(crate) fn later_errors(device: &Device<'_>) -> Values {
    let links = 0..NVML_NVLINK_MAX_LINKS;
    let asked: Vec<(u32, u32)> = LATER_ERRORS
        .iter()
        .flat_map(|field| links.clone().map(|link| (*field, link)))
        .collect();
    let answers = raw::fields(device, &asked)?;
    let sum = |field: u32| {
        let mut sum: Option<i64> = None;
        for ((_, _), answer) in asked
            .iter()
            .zip(&answers)
            .filter(|((of, _), _)| *of == field)
        {
            if let Ok(Value::Int(count)) = answer {
                sum = Some(sum.unwrap_or_default().saturating_add(*count));
            }
        }
        sum.map(Value::Int).ok_or(NvmlError::NotSupported)
    };
    Ok(LATER_ERRORS.map(sum).into())
}

/// The links that a GPU has, and whom they reach.
pub(crate) fn inventory(device: &Device<'_>) -> Result<Vec<NvLink>, CallFailed> {
    let links = told("nvmlDeviceGetNvLinkState", || links(device))?.unwrap_or_default();
    let link = |(link, _): (u32, bool)| {
        let wrapper = device.link_wrapper_for(link);
        let remote = told("nvmlDeviceGetNvLinkRemoteDeviceType", || {
            raw::nvlink_remote_type(device, link)
        })?;
        let remote_pci = told("nvmlDeviceGetNvLinkRemotePciInfo_v2", || {
            wrapper.remote_pci_info()
        })?;
        Ok(NvLink {
            link,
            version: told("nvmlDeviceGetNvLinkVersion", || wrapper.version())?,
            remote: remote.and_then(remote_word).map(str::to_owned),
            // All ones: whoever is there has no address on this node (a switch in another tray).
            remote_pci: remote_pci
                .filter(|pci| pci.domain != u32::MAX && pci.bus < 0xff)
                .and_then(|pci| pci.bus_id.parse().ok()),
        })
    };
    links.into_iter().map(link).collect()
}

fn remote_word(remote: u32) -> Option<&'static str> {
    match remote {
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU => Some("gpu"),
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH => Some("switch"),
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU => Some("cpu"),
        _ => None,
    }
}
