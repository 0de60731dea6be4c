//! The PCIe link.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::nvmlDevice_t;

use super::code::Code;
use super::{Out, on_gpu, put};
use crate::node::{Gpu, PcieLink};
use crate::profile::Profile;

/// GT/s of one lane, in NVML's MB/s, by generation from the first.
const LANE_MBPS: [c_uint; 6] = [2500, 5000, 8000, 16_000, 32_000, 64_000];

fn speed(generation: u32) -> c_uint {
    let index = usize::try_from(generation).unwrap_or_default();
    let lane = LANE_MBPS.get(index.wrapping_sub(1));
    lane.copied().unwrap_or_default()
}

fn figure(
    call: &str,
    device: nvmlDevice_t,
    out: Out<'_, c_uint>,
    read: impl FnOnce(&Profile, &Gpu) -> c_uint,
) -> Result<(), Code> {
    put(
        out,
        on_gpu(call, device, |profile, gpu| Ok(read(profile, gpu)))?,
    )
}

exports! {
    fn nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, lanes: Out<'_, c_uint>) {
        figure(CALL, device, lanes, |_, gpu| gpu.pcie.width)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, lanes: Out<'_, c_uint>) {
        figure(CALL, device, lanes, |_, _| PcieLink::width_max())
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, generation: Out<'_, c_uint>) {
        figure(CALL, device, generation, |_, gpu| gpu.pcie.generation)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, generation: Out<'_, c_uint>) {
        figure(CALL, device, generation, |profile, _| profile.pci.generation)
    }

    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: nvmlDevice_t, generation: Out<'_, c_uint>) {
        figure(CALL, device, generation, |profile, _| profile.pci.generation)
    }

    fn nvmlDeviceGetPcieSpeed(device: nvmlDevice_t, mbps: Out<'_, c_uint>) {
        figure(CALL, device, mbps, |_, gpu| speed(gpu.pcie.generation))
    }

    fn nvmlDeviceGetPcieReplayCounter(device: nvmlDevice_t, replays: Out<'_, c_uint>) {
        figure(CALL, device, replays, |_, gpu| gpu.pcie.replays)
    }
}
