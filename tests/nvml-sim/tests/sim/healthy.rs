//! What the library is before anyone breaks it, and how it answers a caller's mistakes.

use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;

use crate::process::{device, initialised, isolated, load, nvml, text};
use nvml_sim::profile::Profile;
use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlMemory_v2_t, nvmlPciInfo_t};

const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const VERSION_MISMATCH: u32 = 25;

#[test]
fn without_configuration_it_is_eight_healthy_h100s() {
    isolated(&[("NVML_SIM_SOCKET", "")], || {
        let lib = initialised();
        let mut count = 0;
        assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), 0);
        assert_eq!(count, 8);
        for identity in Profile::standard().gpus(8) {
            let gpu = device(&lib, identity.index);
            assert_eq!(
                text(|b, n| nvml!(lib.nvmlDeviceGetName(gpu, b, n))),
                "NVIDIA H100 80GB HBM3"
            );
            assert_eq!(
                text(|b, n| nvml!(lib.nvmlDeviceGetUUID(gpu, b, n))),
                identity.uuid
            );
            // SAFETY: all-zero bytes are a valid value of this struct of numbers.
            let mut pci: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
            assert_eq!(nvml!(lib.nvmlDeviceGetPciInfo_v3(gpu, &mut pci)), 0);
            let bus_id: Vec<u8> = pci.busId.iter().map(|c| c.to_ne_bytes()[0]).collect();
            let bus_id = CStr::from_bytes_until_nul(&bus_id)
                .unwrap()
                .to_str()
                .unwrap();
            assert_eq!(bus_id, identity.pci.bus_id());
            let mut celsius = 0;
            assert_eq!(nvml!(lib.nvmlDeviceGetTemperature(gpu, 0, &mut celsius)), 0);
            assert!((30..=45).contains(&celsius), "{celsius}");
            let mut slowdown = 0;
            assert_eq!(
                nvml!(lib.nvmlDeviceGetTemperatureThreshold(gpu, 1, &mut slowdown)),
                0
            );
            assert!(slowdown > 80, "{slowdown}");
            let (mut draw, mut limit) = (0, 0);
            assert_eq!(nvml!(lib.nvmlDeviceGetPowerUsage(gpu, &mut draw)), 0);
            assert_eq!(
                nvml!(lib.nvmlDeviceGetPowerManagementLimit(gpu, &mut limit)),
                0
            );
            assert!(
                (60_000..80_000).contains(&draw) && limit == 700_000,
                "{draw} of {limit}"
            );
            let mut errors = 1;
            assert_eq!(
                nvml!(lib.nvmlDeviceGetTotalEccErrors(gpu, 1, 0, &mut errors)),
                0
            );
            assert_eq!(errors, 0);
        }
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlSystemGetDriverVersion(b, n))),
            "580.82.07"
        );
        let mut cuda = 0;
        assert_eq!(nvml!(lib.nvmlSystemGetCudaDriverVersion_v2(&mut cuda)), 0);
        assert_eq!(cuda, 13_000);
    });
}

#[test]
fn profile_and_count_come_from_the_environment() {
    let environment = [("NVML_SIM_PROFILE", "gb200"), ("NVML_SIM_GPUS", "64")];
    isolated(&environment, || {
        let lib = initialised();
        let last = device(&lib, 63);
        assert_eq!(
            text(|b, n| nvml!(lib.nvmlDeviceGetName(last, b, n))),
            "NVIDIA GB200"
        );
        let mut memory = nvmlMemory_v2_t {
            version: 0,
            total: 0,
            reserved: 0,
            free: 0,
            used: 0,
        };
        assert_eq!(
            nvml!(lib.nvmlDeviceGetMemoryInfo_v2(last, &mut memory)),
            VERSION_MISMATCH
        );
        memory.version = size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24;
        assert_eq!(nvml!(lib.nvmlDeviceGetMemoryInfo_v2(last, &mut memory)), 0);
        assert_eq!(memory.total, 189_471 << 20);
        assert_eq!(memory.free + memory.used + memory.reserved, memory.total);
    });
}

#[test]
fn it_says_that_it_is_simulated() {
    isolated(&[], || {
        let lib = load();
        // SAFETY: this is the prototype that the crate documents.
        let said = unsafe {
            let symbol = nvml_sim::IDENTITY_SYMBOL.as_bytes();
            let identity = lib
                .__library
                .get::<unsafe extern "C" fn() -> *const c_char>(symbol)
                .unwrap();
            CStr::from_ptr(identity())
        };
        assert_eq!(said.to_str().unwrap(), nvml_sim::IDENTITY);
    });
}

#[test]
fn initialisation_is_counted_and_comes_first() {
    isolated(&[], || {
        let lib = load();
        let mut count = 0;
        let mut set = null_mut();
        assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), UNINITIALIZED);
        assert_eq!(nvml!(lib.nvmlEventSetCreate(&mut set)), UNINITIALIZED);
        assert_eq!(nvml!(lib.nvmlShutdown()), UNINITIALIZED);
        // Before arguments are looked at, too.
        assert_eq!(
            nvml!(lib.nvmlDeviceGetIndex(null_mut(), null_mut())),
            UNINITIALIZED
        );
        assert_eq!(
            nvml!(lib.nvmlEventSetWait_v2(null_mut(), null_mut(), 0)),
            UNINITIALIZED
        );

        assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
        assert_eq!(nvml!(lib.nvmlInitWithFlags(0)), 0);
        assert_eq!(nvml!(lib.nvmlShutdown()), 0);
        assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), 0);
        assert_eq!(nvml!(lib.nvmlShutdown()), 0);
        assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), UNINITIALIZED);
        assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
        assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), 0);
    });
}

#[test]
fn a_gpu_is_found_by_its_names() {
    isolated(&[], || {
        let lib = initialised();
        let mut found = null_mut();
        let mut by_pci = |text: &str| {
            let text = CString::new(text).unwrap();
            nvml!(lib.nvmlDeviceGetHandleByPciBusId_v2(text.as_ptr(), &mut found))
        };
        assert_eq!((by_pci("0000:1b:00.0"), by_pci("00000000:DF:00.0")), (0, 0));
        assert_eq!(
            (by_pci("0000:ff:00.0"), by_pci("nonsense")),
            (NOT_FOUND, INVALID_ARGUMENT)
        );
        assert_eq!(found, device(&lib, 7));
        let uuid = CString::new(Profile::standard().gpu(5).unwrap().uuid).unwrap();
        assert_eq!(
            nvml!(lib.nvmlDeviceGetHandleByUUID(uuid.as_ptr(), &mut found)),
            0
        );
        assert_eq!(found, device(&lib, 5));
        assert_eq!(
            nvml!(lib.nvmlDeviceGetHandleByUUID(c"GPU-0".as_ptr(), &mut found)),
            NOT_FOUND
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceGetHandleByIndex_v2(8, &mut found)),
            INVALID_ARGUMENT
        );
    });
}

#[test]
fn a_callers_mistakes_get_the_documented_codes() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let mut out = 0;
        let mut name = [0; 8];
        let name = name.as_mut_ptr();
        let (none, nobody) = (null_mut(), null_mut());
        let pages = nvml!(lib.nvmlDeviceGetRetiredPagesPendingStatus(gpu, &mut out));
        let threshold = |kind| nvml!(lib.nvmlDeviceGetTemperatureThreshold(gpu, kind, &mut 0));
        let mig = nvml!(lib.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0, &mut null_mut()));
        let sensor = nvml!(lib.nvmlDeviceGetTemperature(gpu, 9, &mut out));
        let values = nvml!(lib.nvmlDeviceGetFieldValues(gpu, 1, null_mut()));
        for (what, code, expected) in [
            (
                "null out",
                nvml!(lib.nvmlDeviceGetCount_v2(null_mut())),
                INVALID_ARGUMENT,
            ),
            (
                "null text",
                nvml!(lib.nvmlDeviceGetName(gpu, null_mut(), 96)),
                INVALID_ARGUMENT,
            ),
            (
                "short text",
                nvml!(lib.nvmlDeviceGetName(gpu, name, 8)),
                INSUFFICIENT_SIZE,
            ),
            (
                "null device",
                nvml!(lib.nvmlDeviceGetIndex(nobody, &mut out)),
                INVALID_ARGUMENT,
            ),
            ("null values", values, INVALID_ARGUMENT),
            ("no such sensor", sensor, INVALID_ARGUMENT),
            ("no such threshold", threshold(8), INVALID_ARGUMENT),
            ("acoustic threshold", threshold(5), NOT_SUPPORTED),
            ("retired pages", pages, NOT_SUPPORTED),
            ("no such instance", mig, NOT_FOUND),
            (
                "null set",
                nvml!(lib.nvmlEventSetWait_v2(none, null_mut(), 0)),
                INVALID_ARGUMENT,
            ),
            (
                "no such set",
                nvml!(lib.nvmlEventSetFree(none)),
                INVALID_ARGUMENT,
            ),
        ] {
            assert_eq!(code, expected, "{what}");
        }
        let words = nvml!(lib.nvmlErrorString(15));
        // SAFETY: the library answers a C string for every code.
        assert_eq!(unsafe { CStr::from_ptr(words) }, c"GPU is lost");
    });
}

#[test]
fn every_field_value_has_its_own_code() {
    isolated(&[], || {
        let lib = initialised();
        crate::process::client().recovery_action(2, 2).unwrap();
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut values: [nvmlFieldValue_t; 2] = unsafe { std::mem::zeroed() };
        values[0].fieldId = 230;
        // What the texture units count, which is SRAM since Ampere.
        values[1].fieldId = 15;
        let gpu = device(&lib, 2);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetFieldValues(gpu, 2, values.as_mut_ptr())),
            0
        );
        assert_eq!(values.map(|value| value.nvmlReturn), [0, NOT_SUPPORTED]);
        // SAFETY: the type says that this is the member that was written.
        let action = unsafe { values[0].value.uiVal };
        assert_eq!((values[0].valueType, action), (1, 2));
        assert!(values[0].timestamp > 1_600_000_000_000_000);
    });
}
