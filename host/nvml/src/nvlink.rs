//! What NVML tells of a GPU's NVLinks, link by link.

use device_api_core::device::NvLink;
use device_api_core::signal::Value;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::field_id as field;
use nvml_wrapper_sys::bindings::{self as sys, NVML_NVLINK_MAX_LINKS};

use crate::call::{CallFailed, watched};
use crate::inventory::{Told, told};
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
        let active = || device.link_wrapper_for(link).is_active();
        match watched("nvmlDeviceGetNvLinkState", active) {
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
    let totals = ERRORS.each_ref().map(|(field, _)| (*field, 0));
    let totals = watched("nvmlDeviceGetFieldValues", || raw::fields(device, &totals));
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
    let mut counts = Vec::new();
    for link in 0..NVML_NVLINK_MAX_LINKS {
        let count = || device.link_wrapper_for(link).error_counter(*counter);
        match watched("nvmlDeviceGetNvLinkErrorCounter", count) {
            Err(error @ NvmlError::FailedToLoadSymbol(_)) => return Err(error),
            count => counts.push(count.map(int)),
        }
    }
    sum(counts)
}

/// The sums of what each link counts, all links and counters asked in one call.
pub(crate) fn later_errors(device: &Device<'_>) -> Values {
    let links = 0..NVML_NVLINK_MAX_LINKS;
    let asked: Vec<(u32, u32)> = LATER_ERRORS
        .iter()
        .flat_map(|field| links.clone().map(|link| (*field, link)))
        .collect();
    let mut answers = raw::fields(device, &asked)?.into_iter();
    let sums = LATER_ERRORS.map(|_| sum(answers.by_ref().take(links.len())));
    Ok(sums.into())
}

/// All links together. A part that is not told makes no sum: it would fall, and rise by all that was counted when the
/// link is told of again.
fn sum(counts: impl IntoIterator<Item = Result<Value, NvmlError>>) -> Result<Value, NvmlError> {
    let mut sum: Option<i64> = None;
    let mut failed = None;
    for count in counts {
        match count {
            Ok(Value::Int(count)) => {
                sum = Some(sum.unwrap_or_default().saturating_add(count));
            }
            Ok(_) => failed = Some(NvmlError::UnexpectedVariant(0)),
            Err(error) if is_absent(&error) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => sum.map(Value::Int).ok_or(NvmlError::NotSupported),
    }
}

/// The links that a GPU has, and whom they reach. What is not said just now is as `before`.
pub(crate) fn inventory(device: &Device<'_>, before: &[NvLink]) -> Result<Vec<NvLink>, CallFailed> {
    let links = match told("nvmlDeviceGetNvLinkState", || links(device))? {
        Told::Has(links) => links,
        Told::HasNot => Vec::new(),
        Told::Unsaid => return Ok(before.to_vec()),
    };
    let far_ends = far_ends(device, &links)?;
    let of_link = |((link, _), far_end): ((u32, bool), Told<u32>)| {
        let wrapper = device.link_wrapper_for(link);
        let before = before.iter().find(|before| before.link == link);
        let remote = told("nvmlDeviceGetNvLinkRemoteDeviceType", || {
            raw::nvlink_remote_type(device, link)
        })?;
        let remote_pci = told("nvmlDeviceGetNvLinkRemotePciInfo_v2", || {
            wrapper.remote_pci_info()
        })?;
        let version = told("nvmlDeviceGetNvLinkVersion", || wrapper.version())?;
        Ok(NvLink {
            link,
            version: version.or(before.and_then(|before| before.version)),
            remote: remote
                .and_then(remote_word)
                .map(str::to_owned)
                .or(before.and_then(|before| before.remote.clone())),
            // All ones: whoever is there has no address on this node (a switch in another tray).
            remote_pci: remote_pci
                .and_then(|pci| Some(pci).filter(|pci| pci.domain != u32::MAX && pci.bus < 0xff))
                .and_then(|pci| pci.bus_id.parse().ok())
                .or(before.and_then(|before| before.remote_pci)),
            remote_link: far_end.or(before.and_then(|before| before.remote_link)),
        })
    };
    links.into_iter().zip(far_ends).map(of_link).collect()
}

/// The number that each link has at its other end. NVML does not tell that of a link that is down.
fn far_ends(device: &Device<'_>, links: &[(u32, bool)]) -> Result<Vec<Told<u32>>, CallFailed> {
    let field = field::NVML_FI_DEV_NVLINK_REMOTE_NVLINK_ID;
    let asked: Vec<(u32, u32)> = links.iter().map(|(link, _)| (field, *link)).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let answers = match told("nvmlDeviceGetFieldValues", || raw::fields(device, &asked))? {
        Told::Has(answers) => answers,
        Told::HasNot => return Ok(vec![Told::HasNot; links.len()]),
        Told::Unsaid => return Ok(vec![Told::Unsaid; links.len()]),
    };
    let number = |answer| match answer {
        Ok(Value::Int(number)) => u32::try_from(number).map_or(Told::HasNot, Told::Has),
        Ok(_) => Told::HasNot,
        Err(error) if is_absent(&error) => Told::HasNot,
        Err(_) => Told::Unsaid,
    };
    Ok(answers.into_iter().map(number).collect())
}

fn remote_word(remote: u32) -> Option<&'static str> {
    match remote {
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU => Some("gpu"),
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH => Some("switch"),
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU => Some("cpu"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_which_a_part_is_not_told_is_not_told() {
        let absent = || Err(NvmlError::NotSupported);
        let total = |counts: Vec<Result<Value, NvmlError>>| sum(counts);
        let sum = total(vec![Ok(Value::Int(3)), absent(), Ok(Value::Int(4))]);
        assert_eq!(sum.unwrap(), Value::Int(7));
        let sum = total(vec![Ok(Value::Int(3)), Err(NvmlError::Unknown), absent()]);
        assert!(matches!(sum, Err(NvmlError::Unknown)), "{sum:?}");
        let sum = total(vec![absent(), absent()]);
        assert!(matches!(sum, Err(NvmlError::NotSupported)), "{sum:?}");
    }
}
