//! MIG: modes, what can be cut out, and the devices that were.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    NVML_GPU_INSTANCE_PROFILE_CAPS_P2P, NVML_GPU_INSTANCE_PROFILE_COUNT, nvmlDevice_t,
    nvmlDeviceAttributes_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
    nvmlGpuInstanceProfileInfo_v3_t,
};

use super::code::{self, Code};
use super::{
    Out, check, fixed, flag, handle, mig_handle, on_device, on_gpu, put, struct_version, supported,
};
use crate::node::Instance;
use crate::node::mig::INSTANCES_MAX;
use crate::profile::{Mig, MigProfile, Profile};

/// Something of a MIG device, and of nothing else.
fn on_mig<T>(
    call: &str,
    device: nvmlDevice_t,
    read: impl FnOnce(&Instance) -> T,
) -> Result<T, Code> {
    on_device(call, device, |_, _, instance| {
        instance.map(read).ok_or(code::INVALID_ARGUMENT)
    })
}

fn geometry(profile: &Profile) -> Result<&Mig, Code> {
    supported(profile.mig.as_ref())
}

/// What can be cut out, by `NVML_GPU_INSTANCE_PROFILE_…`.
fn cut(profile: &Profile, kind: c_uint) -> Result<nvmlGpuInstanceProfileInfo_v3_t, Code> {
    check(kind < NVML_GPU_INSTANCE_PROFILE_COUNT)?;
    let known = geometry(profile)?
        .profiles
        .iter()
        .find(|known| known.kind == kind);
    Ok(info(profile, supported(known)?))
}

fn info(profile: &Profile, cut: &MigProfile) -> nvmlGpuInstanceProfileInfo_v3_t {
    let whole = cut.slices == INSTANCES_MAX;
    nvmlGpuInstanceProfileInfo_v3_t {
        version: struct_version::<nvmlGpuInstanceProfileInfo_v3_t>(3),
        id: cut.id,
        sliceCount: cut.slices,
        instanceCount: cut.count,
        multiprocessorCount: cut.sms,
        copyEngineCount: cut.copy_engines,
        decoderCount: cut.slices,
        encoderCount: 0,
        jpegCount: cut.slices,
        ofaCount: flag(whole || cut.name.ends_with("+me")),
        memorySizeMB: cut.memory_mib,
        name: fixed(&format!("MIG {}", cut.name)),
        // Peers need the whole GPU, and NVLink.
        capabilities: if whole && profile.nvlink.is_some() {
            NVML_GPU_INSTANCE_PROFILE_CAPS_P2P
        } else {
            0
        },
    }
}

fn attributes(profile: &Profile, instance: &Instance) -> Option<nvmlDeviceAttributes_t> {
    let cut = profile.mig.as_ref()?.profiles.get(instance.profile)?;
    let info = info(profile, cut);
    Some(nvmlDeviceAttributes_t {
        multiprocessorCount: info.multiprocessorCount,
        sharedCopyEngineCount: info.copyEngineCount,
        sharedDecoderCount: info.decoderCount,
        sharedEncoderCount: info.encoderCount,
        sharedJpegCount: info.jpegCount,
        sharedOfaCount: info.ofaCount,
        gpuInstanceSliceCount: cut.slices,
        computeInstanceSliceCount: cut.slices,
        memorySizeMB: cut.memory_mib,
    })
}

/// # Safety
/// `out` is null or points to a struct of the version that its first field says.
unsafe fn put_versioned(
    out: *mut nvmlGpuInstanceProfileInfo_v2_t,
    info: nvmlGpuInstanceProfileInfo_v3_t,
) -> Result<(), Code> {
    check(!out.is_null())?;
    // SAFETY: not null; every version begins with its number.
    let version = unsafe { out.cast::<c_uint>().read() };
    if version == info.version {
        // SAFETY: it says that it is the third version.
        unsafe { out.cast::<nvmlGpuInstanceProfileInfo_v3_t>().write(info) };
        return Ok(());
    }
    let second = struct_version::<nvmlGpuInstanceProfileInfo_v2_t>(2);
    if version != second {
        return Err(code::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: it says that it is the second version.
    unsafe {
        out.write(nvmlGpuInstanceProfileInfo_v2_t {
            version: second,
            id: info.id,
            isP2pSupported: flag(info.capabilities & NVML_GPU_INSTANCE_PROFILE_CAPS_P2P != 0),
            sliceCount: info.sliceCount,
            instanceCount: info.instanceCount,
            multiprocessorCount: info.multiprocessorCount,
            copyEngineCount: info.copyEngineCount,
            decoderCount: info.decoderCount,
            encoderCount: info.encoderCount,
            jpegCount: info.jpegCount,
            ofaCount: info.ofaCount,
            memorySizeMB: info.memorySizeMB,
            name: info.name,
        });
    }
    Ok(())
}

exports! {
    fn nvmlDeviceGetMigMode(
        device: nvmlDevice_t,
        current: Out<'_, c_uint>,
        pending: Out<'_, c_uint>,
    ) {
        let modes = on_gpu(CALL, device, |profile, gpu| {
            geometry(profile)?;
            Ok((gpu.mig.enabled, gpu.mig.pending))
        })?;
        put(current, flag(modes.0))?;
        put(pending, flag(modes.1))
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: Out<'_, c_uint>) {
        let most = on_gpu(CALL, device, |profile, _| {
            Ok(profile.mig.as_ref().map_or(0, |_| INSTANCES_MAX))
        })?;
        put(count, most)
    }

    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, is_mig: Out<'_, c_uint>) {
        let mig = on_device(CALL, device, |_, _, instance| Ok(instance.is_some()))?;
        put(is_mig, flag(mig))
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(
        device: nvmlDevice_t,
        index: c_uint,
        mig: Out<'_, nvmlDevice_t>,
    ) {
        let found = on_gpu(CALL, device, |profile, gpu| {
            geometry(profile)?;
            check(index < INSTANCES_MAX && mig.is_some())?;
            let found = gpu.mig.iter().find(|instance| instance.index == index);
            found.map(mig_handle).ok_or(code::NOT_FOUND)
        })?;
        put(mig, found)
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
        mig: nvmlDevice_t,
        device: Out<'_, nvmlDevice_t>,
    ) {
        let parent = on_device(CALL, mig, |_, gpu, instance| {
            instance.map(|_| handle(gpu)).ok_or(code::INVALID_ARGUMENT)
        })?;
        put(device, parent)
    }

    fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: Out<'_, c_uint>) {
        put(id, on_mig(CALL, device, |instance| instance.gpu_instance)?)
    }

    fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: Out<'_, c_uint>) {
        put(id, on_mig(CALL, device, |instance| instance.compute_instance)?)
    }

    fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, out: Out<'_, nvmlDeviceAttributes_t>) {
        let read = on_device(CALL, device, |node, _, instance| {
            let instance = instance.ok_or(code::INVALID_ARGUMENT)?;
            attributes(node.profile, instance).ok_or(code::UNKNOWN)
        })?;
        put(out, read)
    }

    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: nvmlDevice_t,
        kind: c_uint,
        out: Out<'_, nvmlGpuInstanceProfileInfo_t>,
    ) {
        let info = on_gpu(CALL, device, |profile, _| cut(profile, kind))?;
        put(out, nvmlGpuInstanceProfileInfo_t {
            id: info.id,
            isP2pSupported: flag(info.capabilities & NVML_GPU_INSTANCE_PROFILE_CAPS_P2P != 0),
            sliceCount: info.sliceCount,
            instanceCount: info.instanceCount,
            multiprocessorCount: info.multiprocessorCount,
            copyEngineCount: info.copyEngineCount,
            decoderCount: info.decoderCount,
            encoderCount: info.encoderCount,
            jpegCount: info.jpegCount,
            ofaCount: info.ofaCount,
            memorySizeMB: info.memorySizeMB,
        })
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(
        device: nvmlDevice_t,
        kind: c_uint,
        out: *mut nvmlGpuInstanceProfileInfo_v2_t,
    ) {
        let info = on_gpu(CALL, device, |profile, _| cut(profile, kind))?;
        // SAFETY: nvml.h: `out` is of the version that its first field says.
        unsafe { put_versioned(out, info) }
    }

    fn nvmlDeviceGetGpuInstanceRemainingCapacity(
        device: nvmlDevice_t,
        id: c_uint,
        count: Out<'_, c_uint>,
    ) {
        let left = on_gpu(CALL, device, |profile, gpu| {
            let mig = geometry(profile)?;
            let position = mig.profiles.iter().position(|known| known.id == id);
            let position = position.ok_or(code::INVALID_ARGUMENT)?;
            Ok(if gpu.mig.enabled { gpu.mig.remaining(mig, position) } else { 0 })
        })?;
        put(count, left)
    }
}
