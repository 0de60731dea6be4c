//! A process of its own for each test, with the simulated library loaded as a daemon loads it.

use std::ffi::CStr;
use std::path::PathBuf;
use std::process::{Command, Output};

use nvml_sim::control::Client;
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlFieldValue_t,
};

const FOLDER: &str = "NVML_SIM_TEST_FOLDER";

/// Runs the body in a process of its own with this environment, for the simulation reads its
/// environment once a process. `$FOLDER` in a value is the test's own [`folder`]. A test calls it
/// once, around all that it does.
pub(crate) fn isolated<F: FnOnce()>(environment: &[(&str, &str)], body: F) {
    if std::env::var_os(FOLDER).is_some() {
        return body();
    }
    // `sim::faults::a_lost_gpu::{{closure}}` is the body of `faults::a_lost_gpu`.
    let (_, path) = std::any::type_name::<F>().split_once("::").unwrap();
    run(path.trim_end_matches("::{{closure}}"), environment);
}

/// Runs a test of this crate in a process of its own and gives its stderr.
pub(crate) fn run(test: &str, environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let own = |value: &str| value.replace("$FOLDER", folder.path().to_str().unwrap());
    let Output {
        status,
        stdout,
        stderr,
    } = own_environment(&mut Command::new(std::env::current_exe().unwrap()))
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder.path())
        .env("NVML_SIM_SOCKET", own("$FOLDER/sim.sock"))
        .envs(environment.iter().map(|(name, value)| (name, own(value))))
        .output()
        .unwrap();
    let [out, err] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{status}\n{out}\n{err}");
    assert!(out.contains("1 passed"), "no test is called {test}:\n{out}");
    err
}

/// Without what a developer's shell has set for a simulation of its own.
fn own_environment(command: &mut Command) -> &mut Command {
    let set = std::env::vars().map(|(name, _)| name);
    for name in set.filter(|name| name.starts_with("NVML_SIM_")) {
        command.env_remove(name);
    }
    command
}

/// The folder of this test alone.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

pub(crate) fn client() -> Client {
    Client::connect(folder().join("sim.sock")).unwrap()
}

/// Calls a symbol of the library; `nvml!(lib.nvmlInit_v2())` is its return code.
macro_rules! nvml {
    ($lib:ident.$call:ident($($arg:expr),* $(,)?)) => {{
        let call = $lib.$call.as_ref().expect(stringify!($call));
        // SAFETY: the arguments are what the prototype of the call asks for, and outlive it.
        unsafe { call($($arg),*) }
    }};
}
pub(crate) use nvml;

pub(crate) fn load() -> NvmlLib {
    let path = nvml_sim::find_library().unwrap();
    // SAFETY: the library is ours and runs no code when it is loaded.
    unsafe { NvmlLib::new(path) }.unwrap()
}

pub(crate) fn initialised() -> NvmlLib {
    let lib = load();
    assert_eq!(nvml!(lib.nvmlInit_v2()), 0);
    lib
}

pub(crate) fn device(lib: &NvmlLib, index: u32) -> nvmlDevice_t {
    let mut device = std::ptr::null_mut();
    assert_eq!(
        nvml!(lib.nvmlDeviceGetHandleByIndex_v2(index, &mut device)),
        0
    );
    device
}

/// What a call that writes text wrote.
pub(crate) fn text(call: impl FnOnce(*mut std::ffi::c_char, u32) -> u32) -> String {
    let mut buffer = [0; 96];
    assert_eq!(call(buffer.as_mut_ptr(), 96), 0);
    // SAFETY: the call succeeded, so there is a terminator within the 96 bytes.
    unsafe { CStr::from_ptr(buffer.as_ptr()) }
        .to_str()
        .unwrap()
        .to_owned()
}

/// An event set that listens to all GPUs for these types.
pub(crate) fn listening(lib: &NvmlLib, types: u64) -> nvmlEventSet_t {
    let mut set = std::ptr::null_mut();
    assert_eq!(nvml!(lib.nvmlEventSetCreate(&mut set)), 0);
    let mut count = 0;
    assert_eq!(nvml!(lib.nvmlDeviceGetCount_v2(&mut count)), 0);
    for index in 0..count {
        let device = device(lib, index);
        assert_eq!(nvml!(lib.nvmlDeviceRegisterEvents(device, types, set)), 0);
    }
    set
}

/// The next event, or the return code instead.
pub(crate) fn wait(
    lib: &NvmlLib,
    set: nvmlEventSet_t,
    timeout_ms: u32,
) -> Result<nvmlEventData_t, u32> {
    let mut data = nvmlEventData_t {
        device: std::ptr::null_mut(),
        eventType: 0,
        eventData: 0,
        gpuInstanceId: 0,
        computeInstanceId: 0,
    };
    match nvml!(lib.nvmlEventSetWait_v2(set, &mut data, timeout_ms)) {
        0 => Ok(data),
        code => Err(code),
    }
}

/// What a call wrote into a number that starts at 0.
pub(crate) fn number<T: Default>(call: impl FnOnce(&mut T) -> u32) -> T {
    let mut out = T::default();
    assert_eq!(call(&mut out), 0);
    out
}

/// What a versioned struct has in its first field.
pub(crate) fn struct_version<T>(version: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap() | (version << 24)
}

/// A field value (of a scope), or its return code.
pub(crate) fn field(lib: &NvmlLib, device: nvmlDevice_t, id: u32, scope: u32) -> Result<i64, u32> {
    // SAFETY: all-zero bytes are a valid value of this struct of numbers.
    let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    (value.fieldId, value.scopeId) = (id, scope);
    assert_eq!(
        nvml!(lib.nvmlDeviceGetFieldValues(device, 1, &mut value)),
        0
    );
    if value.nvmlReturn != 0 {
        return Err(value.nvmlReturn);
    }
    // SAFETY: the type says which member was written.
    Ok(unsafe {
        match value.valueType {
            1 => value.value.uiVal.into(),
            3 => i64::try_from(value.value.ullVal).unwrap(),
            5 => value.value.siVal.into(),
            other => panic!("type {other}"),
        }
    })
}
