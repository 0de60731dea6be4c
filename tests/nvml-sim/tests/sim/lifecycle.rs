//! Drivers that are gone, old, upgraded or of another version than the library; boards that are
//! replaced or reset; calls that misbehave.

use std::collections::BTreeSet;
use std::ptr::null_mut;
use std::thread;
use std::time::Duration;

use crate::process::{
    client, device, field, folder, initialised, isolated, listening, load, number, nvml, text, wait,
};
use nvml_sim::control::{EccKind, Request};
use nvml_sim::old_driver::{self, OldDriverError};
use nvml_wrapper_sys::bindings::NvmlLib;

const UNINITIALIZED: u32 = 1;
const DRIVER_NOT_LOADED: u32 = 9;
const TIMEOUT: u32 = 10;
const GPU_IS_LOST: u32 = 15;
const VERSION_MISMATCH: u32 = 18;
const XID: u64 = 8;
/// More than a loaded machine needs; a test that waits this long has failed.
const LONG_MS: u32 = 20_000;

fn driver(version: Option<&str>, library: Option<&str>) -> Request {
    let [version, library] = [version, library].map(|version| version.map(str::to_owned));
    Request::Driver { version, library }
}

#[test]
fn an_old_drivers_library_lacks_what_came_later() {
    isolated(&[("NVML_SIM_DRIVER", "470.82.01")], || {
        let built = nvml_sim::find_library().unwrap();
        let copy = folder().join("libnvidia-ml.so.1");
        let later = old_driver::missing_before(470);
        old_driver::copy_without(&built, &later, &copy).unwrap();
        // SAFETY: the library is ours and runs no code when it is loaded.
        let lib = unsafe { NvmlLib::new(&copy) }.unwrap();
        let missing: BTreeSet<_> = later.iter().copied().collect();
        for call in [
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetSramEccErrorStatus",
        ] {
            assert!(missing.contains(call));
            // SAFETY: the symbol is only looked for.
            let found = unsafe { lib.__library.get::<unsafe extern "C" fn()>(call.as_bytes()) };
            assert!(found.is_err(), "{call}");
        }
        assert!(lib.nvmlDeviceGetMemoryInfo_v2.is_err());
        // All else works, and says what it is.
        assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlSystemGetDriverVersion(b, n))),
            "470.82.01"
        );
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlSystemGetNVMLVersion(b, n))),
            "11.470.82.01"
        );
        assert_eq!(
            number(|out| nvml!(lib.nvmlSystemGetCudaDriverVersion_v2(out))),
            11_040
        );
        let gpu = device(&lib, 0);
        let reasons: u64 =
            number(|out| nvml!(lib.nvmlDeviceGetCurrentClocksThrottleReasons(gpu, out)));
        assert_eq!(reasons, 1);
        let nothing = old_driver::copy_without(&built, &["nvmlNo"], &copy).unwrap_err();
        assert!(
            matches!(nothing, OldDriverError::NoSuchCall(_)),
            "{nothing}"
        );
    });
}

#[test]
fn an_upgrade_in_flight_turns_new_users_away() {
    isolated(&[], || {
        let lib = initialised();
        let mut client = client();
        client.request(&driver(None, Some("580.95.05"))).unwrap();
        // Who is there works on, and may come twice.
        assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
        for _ in 0..2 {
            assert_eq!(nvml!(lib.nvmlShutdown()), 0);
        }
        assert_eq!(nvml!(lib.nvmlInit_v2()), VERSION_MISMATCH);
        let loaded = client
            .request(&driver(Some("580.95.05"), None))
            .unwrap_err();
        assert!(loaded.to_string().contains("unload it"), "{loaded}");
        client.unload().unwrap();
        client.request(&driver(Some("580.95.05"), None)).unwrap();
        assert_eq!(nvml!(lib.nvmlInit_v2()), DRIVER_NOT_LOADED);
        client.load().unwrap();
        assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlSystemGetDriverVersion(b, n))),
            "580.95.05"
        );
        assert_eq!(client.status().unwrap().library_version, "580.95.05");
    });
}

#[test]
fn an_unloaded_driver_ends_every_session() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, XID);
        client().temperature(0, 77).unwrap();
        let unloaded = thread::spawn(|| client().unload().unwrap());
        assert_eq!(wait(&lib, set, LONG_MS).unwrap_err(), UNINITIALIZED);
        unloaded.join().unwrap();
        assert_eq!(nvml!(lib.nvmlInit_v2()), DRIVER_NOT_LOADED);
        // A consumer closes the library and opens it again; the GPUs are still as sick.
        drop(lib);
        client().load().unwrap();
        let lib = initialised();
        let mut celsius = 0;
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(device(&lib, 0), 0, &mut celsius)),
            0
        );
        assert_eq!(celsius, 77);
    });
}

#[test]
fn a_replaced_gpu_is_another_in_the_same_slot() {
    isolated(&[], || {
        let lib = initialised();
        let old = device(&lib, 3);
        let set = listening(&lib, XID);
        let before = client().status().unwrap().gpus[3].clone();
        client().ecc(3, EccKind::Uncorrected, 5).unwrap();
        client().request(&Request::Replace { gpu: 3 }).unwrap();
        let after = client().status().unwrap().gpus[3].clone();
        assert_eq!(before.pci, after.pci);
        assert!(before.uuid != after.uuid && before.serial != after.serial);
        assert_eq!(after.ecc_uncorrected, 0);
        // Handles of the old one are of no use, and nobody listens to the new one.
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(old, 0, &mut 0)),
            GPU_IS_LOST
        );
        let new = device(&lib, 3);
        assert_ne!(old, new);
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlDeviceGetUUID(new, b, n))),
            after.uuid
        );
        client().xid(3, &[79]).unwrap();
        assert_eq!(wait(&lib, set, 0).unwrap_err(), TIMEOUT);
        assert_eq!(nvml!(lib.nvmlDeviceRegisterEvents(new, XID, set)), 0);
        client().xid(3, &[79]).unwrap();
        assert_eq!(wait(&lib, set, 0).unwrap().device, new);
    });
}

#[test]
fn a_gpu_reset_heals_what_is_volatile_and_a_rebind_less() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let mut client = client();
        let figures = [
            ("ecc.volatile.dram.uncorrected", 2),
            ("ecc.aggregate.dram.uncorrected", 2),
            ("row-remap.uncorrectable", 1),
            ("row-remap.pending", 1),
            ("pcie.replays", 9),
        ];
        client.set(0, &figures).unwrap();
        client.recovery_action(0, 1).unwrap();
        client.lost(0).unwrap();
        let read = |lib: &NvmlLib| {
            // Volatile, aggregate, rows, pending, replays, recovery action.
            [4, 6, 143, 144, 94, 230].map(|id| field(lib, gpu, id, 0).unwrap())
        };
        // A rebind: the driver counts anew, the board is as sick.
        client.found(0).unwrap();
        client.unload().unwrap();
        client.load().unwrap();
        drop(lib);
        let lib = initialised();
        assert_eq!(read(&lib), [0, 2, 1, 1, 9, 1]);
        client.lost(0).unwrap();
        client.gpu_reset(0).unwrap();
        assert_eq!(read(&lib), [0, 2, 1, 0, 0, 0]);
    });
}

#[test]
fn calls_fail_and_dawdle_as_told() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let mut client = client();
        let call = Some("nvmlDeviceGetPowerUsage".to_owned());
        let mut draw = 0;
        client
            .request(&Request::Fail {
                gpu: Some(0),
                call: call.clone(),
                code: 999,
                times: None,
            })
            .unwrap();
        assert_eq!(nvml!(lib.nvmlDeviceGetPowerUsage(gpu, &mut draw)), 999);
        client
            .request(&Request::Unfail {
                gpu: None,
                call: None,
            })
            .unwrap();
        client
            .request(&Request::Slow {
                gpu: None,
                call,
                ms: 50,
            })
            .unwrap();
        let before = std::time::Instant::now();
        assert_eq!(nvml!(lib.nvmlDeviceGetPowerUsage(gpu, &mut draw)), 0);
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert_eq!(client.status().unwrap().misbehaving.len(), 1);
        client.reset(None).unwrap();
        assert!(client.status().unwrap().misbehaving.is_empty());
    });
}

#[test]
fn a_call_fails_as_often_as_it_was_told() {
    isolated(&[], || {
        let lib = load();
        assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
        let call = Some("nvmlSystemGetDriverVersion".to_owned());
        let fail = Request::Fail {
            gpu: None,
            call,
            code: 1,
            times: Some(2),
        };
        client().request(&fail).unwrap();
        let misbehaving = client().status().unwrap().misbehaving;
        assert!(misbehaving[0].ends_with("2 times more"), "{misbehaving:?}");
        let mut buffer = [0; 96];
        let codes =
            [(); 3].map(|()| nvml!(lib.nvmlSystemGetDriverVersion(buffer.as_mut_ptr(), 96)));
        assert_eq!(codes, [1, 1, 0]);
        let mut found = null_mut();
        assert_eq!(nvml!(lib.nvmlDeviceGetHandleByIndex_v2(0, &mut found)), 0);
    });
}
