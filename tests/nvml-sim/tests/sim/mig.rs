//! MIG devices: cut out, found, told apart, and gone.

use std::ffi::CString;
use std::ptr::null_mut;
use std::thread;

use crate::process::{
    client, device, folder, initialised, isolated, listening, number, nvml, struct_version, text,
    wait,
};
use nvml_sim::control::{ClientError, Request};
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlDeviceAttributes_t, nvmlGpuInstanceProfileInfo_v2_t, nvmlMemory_v2_t,
};

const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const GPU_IS_LOST: u32 = 15;
const VERSION_MISMATCH: u32 = 25;
const XID: u64 = 8;
const LONG_MS: u32 = 20_000;

fn cut(gpu: u32, profiles: &[&str]) {
    let profiles = profiles.iter().map(|&profile| profile.to_owned()).collect();
    client()
        .request(&Request::MigMode { gpu, on: true })
        .unwrap();
    client()
        .request(&Request::MigCreate { gpu, profiles })
        .unwrap();
}

fn mig_device(lib: &NvmlLib, gpu: nvmlDevice_t, index: u32) -> Result<nvmlDevice_t, u32> {
    let mut mig = null_mut();
    match nvml!(lib.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index, &mut mig)) {
        0 => Ok(mig),
        code => Err(code),
    }
}

#[test]
fn instances_are_devices_with_a_parent() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 1);
        cut(1, &["3g.40gb", "1g.10gb"]);
        let (mut current, mut pending) = (0, 0);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetMigMode(gpu, &mut current, &mut pending)),
            0
        );
        assert_eq!((current, pending), (1, 1));
        let (three, one) = (
            mig_device(&lib, gpu, 0).unwrap(),
            mig_device(&lib, gpu, 1).unwrap(),
        );
        assert_eq!(mig_device(&lib, gpu, 2), Err(NOT_FOUND));
        assert_eq!(mig_device(&lib, gpu, 7), Err(INVALID_ARGUMENT));
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlDeviceGetName(three, b, n))),
            "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
        );
        let uuid = text(|b, n| nvml!(lib.nvmlDeviceGetUUID(one, b, n)));
        assert!(uuid.starts_with("MIG-") && uuid.len() == 40, "{uuid}");
        let (mut found, name) = (null_mut(), CString::new(uuid).unwrap());
        assert_eq!(
            nvml!(lib.nvmlDeviceGetHandleByUUID(name.as_ptr(), &mut found)),
            0
        );
        assert_eq!(found, one);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(one, &mut found)),
            0
        );
        assert_eq!(found, gpu);
        let ids = [three, one].map(|mig| {
            (
                number(|out| nvml!(lib.nvmlDeviceGetGpuInstanceId(mig, out))),
                number(|out| nvml!(lib.nvmlDeviceGetComputeInstanceId(mig, out))),
            )
        });
        assert_eq!(ids, [(1, 0), (7, 0)]);
        let is_mig = |device| number(|out| nvml!(lib.nvmlDeviceIsMigDeviceHandle(device, out)));
        assert_eq!((is_mig(one), is_mig(gpu)), (1, 0));
        // What only a whole GPU has.
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(one, 0, &mut 0)),
            INVALID_ARGUMENT
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceGetGpuInstanceId(gpu, &mut 0)),
            INVALID_ARGUMENT
        );
    });
}

#[test]
fn an_instance_has_memory_and_slices_of_its_own() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 1);
        cut(1, &["3g.40gb", "1g.10gb"]);
        let (three, one) = (
            mig_device(&lib, gpu, 0).unwrap(),
            mig_device(&lib, gpu, 1).unwrap(),
        );
        let version = struct_version::<nvmlMemory_v2_t>(2);
        let mut memory = nvmlMemory_v2_t {
            version,
            total: 0,
            reserved: 0,
            free: 0,
            used: 0,
        };
        assert_eq!(nvml!(lib.nvmlDeviceGetMemoryInfo_v2(one, &mut memory)), 0);
        assert_eq!(memory.total, 9984 << 20);
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut attributes: nvmlDeviceAttributes_t = unsafe { std::mem::zeroed() };
        assert_eq!(
            nvml!(lib.nvmlDeviceGetAttributes_v2(three, &mut attributes)),
            0
        );
        let slices = (
            attributes.multiprocessorCount,
            attributes.gpuInstanceSliceCount,
        );
        assert_eq!((slices, attributes.memorySizeMB), ((60, 3), 40_448));
    });
}

#[test]
fn what_can_be_cut_out_is_told() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut info: nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
        let mut ask = |kind, version| {
            info.version = version;
            let code = nvml!(lib.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, kind, &mut info));
            (code, info.id, info.memorySizeMB)
        };
        assert_eq!(ask(0, 7).0, VERSION_MISMATCH);
        let second = struct_version::<nvmlGpuInstanceProfileInfo_v2_t>(2);
        assert_eq!(
            (ask(0, second), ask(4, second)),
            ((0, 19, 9984), (0, 0, 81_152))
        );
        assert_eq!(
            (ask(5, second).0, ask(99, second).0),
            (NOT_SUPPORTED, INVALID_ARGUMENT)
        );
        let left =
            |id| number(|out| nvml!(lib.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, id, out)));
        assert_eq!(left(19), 0, "the mode is off");
        cut(0, &["4g.40gb"]);
        assert_eq!([19, 14, 9, 0].map(left), [3, 1, 1, 0]);
    });
}

#[test]
fn a_new_cut_leaves_no_old_device_behind() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        cut(0, &["7g.80gb"]);
        let old = mig_device(&lib, gpu, 0).unwrap();
        let destroy = Request::MigDestroy {
            gpu: 0,
            gpu_instance: None,
        };
        client().request(&destroy).unwrap();
        assert_eq!(mig_device(&lib, gpu, 0), Err(NOT_FOUND));
        cut(0, &["7g.80gb"]);
        let new = mig_device(&lib, gpu, 0).unwrap();
        assert_ne!(old, new, "handles are not reused");
        let mut buffer = [0; 96];
        let name = nvml!(lib.nvmlDeviceGetName(old, buffer.as_mut_ptr(), 96));
        assert_eq!(name, INVALID_ARGUMENT);
        assert_eq!(client().status().unwrap().gpus[0].mig.len(), 1);
        client().lost(0).unwrap();
        assert_eq!(
            nvml!(lib.nvmlDeviceGetName(new, buffer.as_mut_ptr(), 96)),
            GPU_IS_LOST
        );
    });
}

#[test]
fn an_amperes_mode_waits_for_a_reset() {
    isolated(&[("NVML_SIM_PROFILE", "a100")], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        client()
            .request(&Request::MigMode { gpu: 0, on: true })
            .unwrap();
        let modes = || {
            let (mut current, mut pending) = (0, 0);
            assert_eq!(
                nvml!(lib.nvmlDeviceGetMigMode(gpu, &mut current, &mut pending)),
                0
            );
            (current, pending)
        };
        assert_eq!(modes(), (0, 1));
        let profiles = vec!["1g.10gb".to_owned()];
        let create = Request::MigCreate { gpu: 0, profiles };
        let refused = client().request(&create).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(words) if words.contains("gpu-reset")));
        client().gpu_reset(0).unwrap();
        assert_eq!(modes(), (1, 1));
        client().request(&create).unwrap();
    });
}

#[test]
fn an_xid_of_an_instance_names_it() {
    isolated(&[("NVML_SIM_KMSG", "$FOLDER/kmsg")], || {
        let log = folder().join("kmsg");
        std::fs::write(&log, "").unwrap();
        let lib = initialised();
        cut(2, &["3g.40gb", "3g.40gb"]);
        let set = listening(&lib, XID);
        let xid = |gpu_instance| Request::MigXid {
            gpu: 2,
            gpu_instance,
            compute_instance: Some(0),
            codes: vec![43],
            only: None,
        };
        let injected = thread::spawn(move || client().request(&xid(2)).unwrap());
        let event = wait(&lib, set, LONG_MS).unwrap();
        assert_eq!(event.device, device(&lib, 2));
        assert_eq!((event.gpuInstanceId, event.computeInstanceId), (2, 0));
        injected.join().unwrap();
        let line = std::fs::read_to_string(&log).unwrap();
        assert!(line.contains(":00 GPU-I:02 GPU-CI:00): 43, pid="), "{line}");
        assert!(client().request(&xid(9)).is_err());
    });
}
