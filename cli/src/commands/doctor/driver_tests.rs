use std::fs;

use device_api_proto::native::{DaemonPart, HungNvmlCall};
use tempfile::TempDir;

use super::super::check::State;
use super::*;

/// A machine of its own, with these files.
fn machine(files: &[(&str, &str)], environment: &[(&str, &str)]) -> (TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let set = environment.iter();
    let place = Place {
        root: dir.path().to_owned(),
        environment: set
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        uid: 65_534,
        gids: vec![65_534],
        now: jiff::Timestamp::now(),
    };
    (dir, place)
}

const NVRM: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Thu Aug 28 2025\nGCC version:  gcc 13.2\n";
const OPEN: &str = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder)\n";

fn ready(driver: &str, gpus: u32) -> GetNvmlStatusResponse {
    GetNvmlStatusResponse {
        state: NvmlState::Ready.into(),
        library: "/l/libnvidia-ml.so.1".to_owned(),
        driver_version: driver.to_owned(),
        gpus: Some(gpus),
        ..Default::default()
    }
}

fn missing(detail: &str) -> GetNvmlStatusResponse {
    GetNvmlStatusResponse {
        state: NvmlState::Missing.into(),
        detail: detail.to_owned(),
        ..Default::default()
    }
}

#[test]
fn a_library_that_nobody_has_looked_for_yet_is_no_failure() {
    // As the daemon says it.
    let words = include_str!("../../../../host/nvml/src/operator.rs");
    assert!(words.contains(&format!("{NOT_YET:?}.to_owned()")));
    let (_dir, place) = machine(&[], &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    for check in check(&place, &missing(NOT_YET)) {
        let is_fine = matches!(check.state, State::Ok | State::Skipped);
        assert!(is_fine, "{check:?}");
    }
}

#[track_caller]
fn is(check: &Check, id: &str, state: State, words: &str) {
    assert_eq!((check.id, check.state), (id, state), "{check:?}");
    let said = format!("{} {}", check.why, check.fix);
    assert!(said.contains(words), "{check:?}");
    let to_do = matches!(state, State::Warn | State::Fail);
    assert_eq!(to_do, !check.fix.is_empty(), "{check:?}");
}

#[test]
fn the_library_is_there_or_its_absence_has_a_remedy() {
    use State::{Fail, Ok, Skipped, Warn};
    is(&library(&ready("580.82.07", 8)), LIBRARY, Ok, "580.82.07");
    let simulated = GetNvmlStatusResponse {
        simulated: true,
        ..ready("580.82.07", 8)
    };
    is(&library(&simulated), LIBRARY, Warn, "drill");
    is(
        &library(&missing("none in /x")),
        LIBRARY,
        Fail,
        "none in /x",
    );
    let of = |state: NvmlState| GetNvmlStatusResponse {
        state: state.into(),
        ..Default::default()
    };
    is(
        &library(&of(NvmlState::Disabled)),
        LIBRARY,
        Skipped,
        "turned off",
    );
    is(
        &library(&of(NvmlState::Released)),
        LIBRARY,
        Warn,
        "nvml attach",
    );

    let path = "/opt/driver/usr/lib64/libnvidia-ml.so.1";
    let (_dir, place) = machine(&[(path, "")], &[]);
    is(
        &library_here(&place, "/opt/driver".as_ref()),
        LIBRARY,
        Ok,
        path,
    );
    is(
        &library_here(&place, "/none".as_ref()),
        LIBRARY,
        Warn,
        "--driver-root",
    );
}

#[test]
fn the_module_and_the_library_are_of_one_version() {
    use State::{Fail, Ok, Skipped, Warn};
    let version = |place: &Place, nvml: &GetNvmlStatusResponse| super::version(place, nvml);
    for text in [NVRM, OPEN] {
        let (_dir, place) = machine(&[(MODULE_VERSION, text)], &[]);
        is(
            &version(&place, &ready("580.82.07", 1)),
            VERSION,
            Ok,
            "580.82.07",
        );
        let other = ready("575.51.03", 1);
        is(
            &version(&place, &other),
            VERSION,
            Fail,
            "module is 580.82.07, NVML says 575.51.03",
        );
        let mismatch = missing("nvmlInit_v2 answered LIB_RM_VERSION_MISMATCH");
        is(
            &version(&place, &mismatch),
            VERSION,
            Fail,
            "module is 580.82.07",
        );
        is(&module(&place, None), MODULE, Ok, "580.82.07");
    }
    let (_dir, place) = machine(&[], &[]);
    is(&version(&place, &ready("1.2.3", 1)), VERSION, Ok, "1.2.3");
    is(
        &version(&place, &missing("none")),
        VERSION,
        Skipped,
        "not in use",
    );
    is(&module(&place, None), MODULE, Warn, "modprobe nvidia");
    is(
        &module(&place, Some(&ready("1.2.3", 1))),
        MODULE,
        Skipped,
        "not loaded",
    );
}

#[test]
fn gpus_that_have_a_device_and_no_answer_are_missed() {
    use State::{Fail, Ok, Skipped, Warn};
    let devices = [
        ("/dev/nvidia0", ""),
        ("/dev/nvidia1", ""),
        ("/dev/nvidiactl", ""),
        ("/dev/nvidia-uvm", ""),
    ];
    let (_dir, place) = machine(&devices, &[]);
    is(&gpus(&place, &ready("1", 2)), GPUS, Ok, "shows 2");
    is(
        &gpus(&place, &ready("1", 1)),
        GPUS,
        Warn,
        "NVML shows 1, and /dev has 2",
    );
    is(&gpus(&place, &ready("1", 0)), GPUS, Fail, "no GPU");
    is(&gpus(&place, &missing("none")), GPUS, Skipped, "not in use");
}

#[test]
fn the_remedy_of_a_library_is_that_of_what_is_wrong_with_it() {
    // As the daemon says it.
    let words = include_str!("../../../../host/nvml/src/library.rs");
    assert!(words.contains(NOWHERE) && words.contains(NO_START));
    for (detail, remedy) in [
        ("no libnvidia-ml.so.1 (looked in /a)", "--nvml-driver-root"),
        (
            "NVML of /a does not start: check with nvidia-smi",
            "kernel's module",
        ),
        ("can't use /nonexist.so: point", "--nvml-library"),
    ] {
        is(&library(&missing(detail)), LIBRARY, State::Fail, remedy);
    }
}

#[test]
fn a_kernel_log_that_is_not_there_is_no_matter_of_rights() {
    let of = |path: &str, why: &str| GetDaemonStatusResponse {
        kernel_log: path.to_owned(),
        parts: vec![DaemonPart {
            name: "kernel-log".to_owned(),
            state: DaemonPartState::Degraded.into(),
            detail: why.to_owned(),
        }],
        ..Default::default()
    };
    let (_dir, place) = machine(&[("/proc/sys/kernel/dmesg_restrict", "1\n")], &[]);
    let absent = of("/none", "cannot open: No such file or directory");
    let said = kernel_log(&place, &absent);
    is(&said, KERNEL_LOG, State::Fail, "have --kmsg-path name");
    assert!(!said.fix.contains("CAP_SYSLOG"), "{said:?}");
    let theirs = of("/var/log/kern.log", "Permission denied (os error 13)");
    let said = kernel_log(&place, &theirs);
    is(&said, KERNEL_LOG, State::Fail, "may read /var/log/kern.log");
    assert!(!said.fix.contains("CAP_SYSLOG"), "a file has a mode");
}

#[test]
fn a_call_that_hangs_is_named() {
    is(&calls(&ready("1", 1)), CALLS, State::Ok, "none");
    let call = HungNvmlCall {
        call: "nvmlDeviceGetTemperature".to_owned(),
        device: "GPU-1".to_owned(),
        age: Some(prost_types::Duration {
            seconds: 90,
            nanos: 0,
        }),
        ..Default::default()
    };
    let hung = GetNvmlStatusResponse {
        hung_calls: vec![call.clone(), call],
        ..ready("1", 1)
    };
    is(
        &calls(&hung),
        CALLS,
        State::Fail,
        "nvmlDeviceGetTemperature on GPU-1 has hung for 90 s, and 1 more",
    );
}

#[test]
fn a_pod_that_the_runtime_gave_no_driver_shows_it() {
    use State::{Fail, Ok, Skipped, Warn};
    const POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    const ALL: (&str, &str) = ("NVIDIA_VISIBLE_DEVICES", "all");
    const UTILITY: (&str, &str) = ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility");
    const COMPUTE: (&str, &str) = ("NVIDIA_DRIVER_CAPABILITIES", "compute");
    #[track_caller]
    fn check(files: &[(&str, &str)], set: &[(&str, &str)], state: State, words: &str) {
        let (_dir, place) = machine(files, set);
        for nvml in [None, Some(&missing("none"))] {
            is(&runtime_class(&place, nvml), RUNTIME_CLASS, state, words);
        }
    }
    let device = [("/dev/nvidiactl", "")];
    check(&[], &[ALL], Skipped, "no pod");
    check(&[], &[POD], Warn, "nvml.runtimeClassName");
    check(
        &[],
        &[POD, ("NVIDIA_VISIBLE_DEVICES", "void")],
        Warn,
        "void",
    );
    check(&[], &[POD, ALL], Fail, "did not take it");
    check(&device, &[POD, ALL, COMPUTE], Fail, "without `utility`");
    check(&device, &[POD, ALL, UTILITY], Ok, "took");
    let (_dir, place) = machine(&[], &[POD]);
    is(
        &runtime_class(&place, Some(&ready("1", 1))),
        RUNTIME_CLASS,
        Ok,
        "in use",
    );
}

#[test]
fn the_kernel_log_is_read_or_says_what_it_takes() {
    use State::{Fail, Ok, Skipped};
    let of = |state: DaemonPartState| GetDaemonStatusResponse {
        kernel_log: "/dev/kmsg".to_owned(),
        uid: 65_534,
        parts: vec![DaemonPart {
            name: "kernel-log".to_owned(),
            state: state.into(),
            detail: "/dev/kmsg: Operation not permitted (os error 1)".to_owned(),
        }],
        ..Default::default()
    };
    let (_dir, place) = machine(&[("/proc/sys/kernel/dmesg_restrict", "1\n")], &[]);
    is(
        &kernel_log(&place, &of(DaemonPartState::Up)),
        KERNEL_LOG,
        Ok,
        "/dev/kmsg",
    );
    let degraded = kernel_log(&place, &of(DaemonPartState::Degraded));
    is(&degraded, KERNEL_LOG, Fail, "not permitted");
    is(&degraded, KERNEL_LOG, Fail, "kernelLog.enabled=true");
    is(&degraded, KERNEL_LOG, Fail, "dmesg_restrict is 1");
    let none = GetDaemonStatusResponse::default();
    is(
        &kernel_log(&place, &none),
        KERNEL_LOG,
        Skipped,
        "--kmsg-path",
    );
}
