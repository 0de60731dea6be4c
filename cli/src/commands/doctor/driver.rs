//! The driver: is its library there, of its version, does it answer; and the kernel log.

use device_api_proto::native::{
    DaemonPartState, GetDaemonStatusResponse, GetNvmlStatusResponse, NvmlState,
};

use super::check::Check;
use super::daemon::part;
use super::place::{Place, shown};

const LIBRARY: &str = "nvml.library";
const VERSION: &str = "nvml.version";
const CALLS: &str = "nvml.calls";
const GPUS: &str = "nvml.gpus";
const MODULE: &str = "driver.module";
const RUNTIME_CLASS: &str = "cluster.runtime-class";
const KERNEL_LOG: &str = "kernel-log.access";

/// As `host/nvml` looks, below the driver's root and in the loader's own folders.
const FOLDERS: [&str; 4] = [
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "home/kubernetes/bin/nvidia/lib64",
];
const LIBRARY_NAME: &str = "libnvidia-ml.so.1";

/// How NVML's code for it is named in what the daemon says.
const MISMATCH: &str = "VERSION_MISMATCH";

/// How the daemon says, in its first moment, that it knows nothing yet.
const NOT_YET: &str = "not looked for yet";

/// How it says that it found none, and that what it found does not start; else it was named, and is wrong.
const NOWHERE: &str = "(looked in ";
const NO_START: &str = "does not start";

/// Version of the kernel's module, as in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  …`.
const MODULE_VERSION: &str = "/proc/driver/nvidia/version";

pub(super) fn check(place: &Place, nvml: &GetNvmlStatusResponse) -> Vec<Check> {
    vec![
        library(nvml),
        version(place, nvml),
        calls(nvml),
        gpus(place, nvml),
        module(place, Some(nvml)),
        runtime_class(place, Some(nvml)),
    ]
}

/// Where the daemon can't be asked.
pub(super) fn check_here(place: &Place, driver_root: &std::path::Path) -> Vec<Check> {
    vec![
        library_here(place, driver_root),
        module(place, None),
        runtime_class(place, None),
    ]
}

fn is_not_yet_looked_for(nvml: &GetNvmlStatusResponse) -> bool {
    nvml.state() == NvmlState::Missing && nvml.detail == NOT_YET
}

fn library(nvml: &GetNvmlStatusResponse) -> Check {
    match nvml.state() {
        NvmlState::Missing if is_not_yet_looked_for(nvml) => Check::skipped(
            LIBRARY,
            format!("{NOT_YET}: the daemon has just started; run this again"),
        ),
        NvmlState::Ready if nvml.simulated => Check::warn(
            LIBRARY,
            format!(
                "{} is a simulated one: all that it tells is a drill",
                nvml.library
            ),
            "on a machine with GPUs, have --nvml-library name the driver's, or leave it out",
        ),
        NvmlState::Ready => Check::ok(
            LIBRARY,
            format!("{}, driver {}", nvml.library, nvml.driver_version),
        ),
        NvmlState::Disabled => Check::skipped(LIBRARY, "NVML is turned off by configuration"),
        NvmlState::Released => Check::warn(
            LIBRARY,
            "the driver is let go of, on an operator's word: GPUs turn Unknown",
            "devicectl nvml attach, once the reset or the upgrade is over",
        ),
        NvmlState::Missing => Check::fail(
            LIBRARY,
            nvml.detail.clone(),
            if nvml.detail.contains(NO_START) {
                "the library was found: see that the kernel's module is loaded, and of its version (driver.module, nvml.version; nvidia-smi on the node)"
            } else if nvml.detail.contains(NOWHERE) {
                "run nvidia-smi on the node; if it works there, have --nvml-driver-root (chart: nvml.driverRoot, or nvml.runtimeClassName) lead to the driver"
            } else {
                "have --nvml-library name the driver's libnvidia-ml.so.1, or leave it out: then the driver's root is looked through"
            },
        ),
        NvmlState::Unspecified => {
            Check::skipped(LIBRARY, "in a state that this devicectl does not know")
        }
    }
}

fn library_here(place: &Place, driver_root: &std::path::Path) -> Check {
    let roots = [place.path(&shown(driver_root)), place.root.clone()];
    let mut candidates = roots.iter().flat_map(|root| {
        let folders = FOLDERS.iter().map(move |folder| root.join(folder));
        folders.map(|folder| folder.join(LIBRARY_NAME))
    });
    match candidates.find(|path| path.exists()) {
        Some(path) => Check::ok(LIBRARY, format!("{} is there", shown(&path))),
        None => Check::warn(
            LIBRARY,
            format!(
                "no {LIBRARY_NAME} under {} nor in this system's own folders",
                shown(driver_root)
            ),
            "install the driver, or name its root with --driver-root (of the daemon: --nvml-driver-root)",
        ),
    }
}

/// The version of the kernel's module.
fn module_version(place: &Place) -> Option<String> {
    let text = place.read(MODULE_VERSION)?;
    let line = text.lines().find(|line| line.starts_with("NVRM"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn version(place: &Place, nvml: &GetNvmlStatusResponse) -> Check {
    let fix = "unload the old kernel module (drain the node, then reboot it, or rmmod and modprobe nvidia); where the pod holds libraries of its own, restart the pod";
    if nvml.state() == NvmlState::Missing && nvml.detail.contains(MISMATCH) {
        let module = module_version(place).unwrap_or_else(|| "another version".to_owned());
        let why = format!(
            "the kernel's module is {module}, the library is not: {}",
            nvml.detail
        );
        return Check::fail(VERSION, why, fix);
    }
    if nvml.state() != NvmlState::Ready {
        return Check::skipped(VERSION, "NVML is not in use");
    }
    match module_version(place) {
        Some(module) if !nvml.simulated && module != nvml.driver_version => Check::fail(
            VERSION,
            format!(
                "the kernel's module is {module}, NVML says {}",
                nvml.driver_version
            ),
            fix,
        ),
        _ => Check::ok(VERSION, format!("driver {}", nvml.driver_version)),
    }
}

fn calls(nvml: &GetNvmlStatusResponse) -> Check {
    let Some(call) = nvml.hung_calls.first() else {
        return Check::ok(CALLS, "none hangs");
    };
    let on = match &*call.device {
        "" => String::new(),
        device => format!(" on {device}"),
    };
    let age = call.age.unwrap_or_default().seconds;
    let more = match nvml.hung_calls.len() {
        1 => String::new(),
        calls => format!(", and {} more", calls - 1),
    };
    Check::fail(
        CALLS,
        format!("{}{on} has hung for {age} s{more}", call.call),
        "drain the node and look at its kernel log for XIDs; a driver that hangs wants a GPU reset or a reboot",
    )
}

fn gpus(place: &Place, nvml: &GetNvmlStatusResponse) -> Check {
    let Some(shown) = nvml.gpus.filter(|_| nvml.state() == NvmlState::Ready) else {
        return Check::skipped(GPUS, "NVML is not in use");
    };
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let nodes = place.count("/dev", is_gpu);
    let fix = "look for a GPU that fell off the bus: lspci -d 10de:, and the kernel log; in a pod, NVIDIA_VISIBLE_DEVICES=all";
    if shown == 0 {
        return Check::fail(GPUS, "NVML shows no GPU", fix);
    }
    if !nvml.simulated && nodes > usize::try_from(shown).unwrap_or(usize::MAX) {
        let why = format!("NVML shows {shown}, and /dev has {nodes}");
        return Check::warn(GPUS, why, fix);
    }
    Check::ok(GPUS, format!("NVML shows {shown}"))
}

fn module(place: &Place, nvml: Option<&GetNvmlStatusResponse>) -> Check {
    if let Some(version) = module_version(place) {
        return Check::ok(MODULE, format!("the kernel's module is {version}"));
    }
    let absent = format!(
        "no {MODULE_VERSION}: the kernel's module is not loaded, or not to be seen from here"
    );
    match nvml.map(GetNvmlStatusResponse::state) {
        Some(NvmlState::Missing) if nvml.is_some_and(is_not_yet_looked_for) => {
            Check::skipped(MODULE, absent)
        }
        Some(NvmlState::Missing) | None => Check::warn(
            MODULE,
            absent,
            "on the node: modprobe nvidia, and see dmesg where that fails; a node without GPUs is none for this daemon",
        ),
        Some(_) => Check::skipped(MODULE, absent),
    }
}

/// By what the pod sees: nobody here may ask the API server.
fn runtime_class(place: &Place, nvml: Option<&GetNvmlStatusResponse>) -> Check {
    if !place.in_pod() {
        return Check::skipped(RUNTIME_CLASS, "this is no pod");
    }
    match nvml.map(GetNvmlStatusResponse::state) {
        Some(NvmlState::Missing) if nvml.is_some_and(is_not_yet_looked_for) => {
            return Check::skipped(RUNTIME_CLASS, format!("NVML is {NOT_YET}"));
        }
        Some(NvmlState::Missing) | None => {}
        Some(NvmlState::Ready) => return Check::ok(RUNTIME_CLASS, "NVML is in use"),
        Some(_) => return Check::skipped(RUNTIME_CLASS, "NVML is not looked for"),
    }
    let wanted = place.variable("NVIDIA_VISIBLE_DEVICES").unwrap_or_default();
    if matches!(wanted, "" | "void" | "none") {
        return Check::warn(
            RUNTIME_CLASS,
            format!("NVIDIA_VISIBLE_DEVICES is {wanted:?} here: nobody asks for the driver"),
            "in the daemon's pod: nvml.enabled=true and nvml.runtimeClassName=nvidia in the chart's values; other pods don't need it",
        );
    }
    if !place.has("/dev/nvidiactl") {
        return Check::fail(
            RUNTIME_CLASS,
            format!(
                "NVIDIA_VISIBLE_DEVICES={wanted}, and there is no /dev/nvidiactl: the container runtime did not take it"
            ),
            "have the pod's runtimeClassName (chart: nvml.runtimeClassName) name a RuntimeClass of the NVIDIA container toolkit (kubectl get runtimeclass), and the toolkit accept NVIDIA_VISIBLE_DEVICES from unprivileged pods (accept-nvidia-visible-devices-envvar-when-unprivileged)",
        );
    }
    let capabilities = place
        .variable("NVIDIA_DRIVER_CAPABILITIES")
        .unwrap_or_default();
    let is_utility = capabilities
        .split(',')
        .any(|one| matches!(one.trim(), "utility" | "all"));
    if is_utility {
        return Check::ok(
            RUNTIME_CLASS,
            format!("the runtime took NVIDIA_VISIBLE_DEVICES={wanted}"),
        );
    }
    Check::fail(
        RUNTIME_CLASS,
        format!(
            "NVIDIA_DRIVER_CAPABILITIES is {capabilities:?}: without `utility` the runtime brings no NVML"
        ),
        "set NVIDIA_DRIVER_CAPABILITIES=utility, as the chart does",
    )
}

/// How the system says that one may not (EACCES, EPERM).
const DENIED: [&str; 2] = ["Permission denied", "not permitted"];

pub(super) fn kernel_log(place: &Place, status: &GetDaemonStatusResponse) -> Check {
    if status.kernel_log.is_empty() {
        return Check::skipped(
            KERNEL_LOG,
            "none is read (--kmsg-path, chart: kernelLog.enabled): NVML alone tells of XIDs",
        );
    }
    let Some(part) = part(status, "kernel-log") else {
        return Check::skipped(
            KERNEL_LOG,
            format!("{}: nothing known yet", status.kernel_log),
        );
    };
    if part.state() != DaemonPartState::Degraded {
        return Check::ok(KERNEL_LOG, part.detail.clone());
    }
    if !DENIED.iter().any(|words| part.detail.contains(words)) {
        let fix = "have --kmsg-path name the kernel log, /dev/kmsg; in a pod, kernelLog.enabled=true mounts it";
        return Check::fail(KERNEL_LOG, part.detail.clone(), fix);
    }
    let restricted = place.read("/proc/sys/kernel/dmesg_restrict");
    let hint = match restricted.as_deref() {
        Some("1") if status.kernel_log == "/dev/kmsg" => {
            " (kernel.dmesg_restrict is 1: it takes root with CAP_SYSLOG)"
        }
        _ => "",
    };
    Check::fail(
        KERNEL_LOG,
        part.detail.clone(),
        format!(
            "run the daemon (uid {}) as one that may read {}{hint}; in a pod, kernelLog.enabled=true makes it privileged, which no less does",
            status.uid, status.kernel_log
        ),
    )
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
