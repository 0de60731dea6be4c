//! The library and its driver: initialisation, versions, words, and the marker.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::io::Write;

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use super::code::{self, Code};
use super::{Out, node, put, put_text};
use crate::IDENTITY;
use crate::sim;

const IDENTITY_C: &CStr = {
    const TEXT: &str = concat!("nvml-sim ", env!("CARGO_PKG_VERSION"), "\0");
    match CStr::from_bytes_with_nul(TEXT.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"nvml-sim",
    }
};

/// The marker of the simulation, which NVML doesn't have: see the crate's documentation.
#[unsafe(no_mangle)]
extern "C" fn nvmlSimIdentity() -> *const c_char {
    debug_assert_eq!(IDENTITY_C.to_bytes(), IDENTITY.as_bytes());
    IDENTITY_C.as_ptr()
}

/// Valid for as long as the library is loaded, and callable at any time.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    code::words(result).as_ptr()
}

fn init(call: &str) -> Result<(), Code> {
    let sim = sim::start().map_err(|error| {
        // The one way to say it: NVML has no channel for words. A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr(), "nvml-sim: {error}");
        code::UNKNOWN
    })?;
    let mut node = sim.enter(call, None)?;
    if !node.loaded {
        return Err(code::DRIVER_NOT_LOADED);
    }
    // A library that is in use already came with the driver that was there.
    if node.users == 0 && !node.versions.match_up() {
        return Err(code::LIB_RM_VERSION_MISMATCH);
    }
    node.users += 1;
    Ok(())
}

exports! {
    fn nvmlInit() {
        init(CALL)
    }

    fn nvmlInit_v2() {
        init(CALL)
    }

    /// All flags are about GPUs that a node may lack; this one has its own.
    fn nvmlInitWithFlags(_flags: c_uint) {
        init(CALL)
    }

    fn nvmlShutdown() {
        let mut node = node(CALL, None)?;
        node.users -= 1;
        if node.users == 0 {
            node.end_session();
            drop(node);
            // Who still waits for events learns that there is nothing to wait for.
            sim::started().ok_or(code::UNINITIALIZED)?.notify();
        }
        Ok(())
    }

    fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) {
        let text = node(CALL, None)?.versions.driver.clone();
        // SAFETY: nvml.h: `version` has room for `length` bytes.
        unsafe { put_text(version, length, &text) }
    }

    fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) {
        let text = node(CALL, None)?.versions.nvml();
        // SAFETY: nvml.h: `version` has room for `length` bytes.
        unsafe { put_text(version, length, &text) }
    }

    fn nvmlSystemGetCudaDriverVersion(version: Out<'_, c_int>) {
        let cuda = node(CALL, None)?.versions.cuda();
        put(version, cuda)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<'_, c_int>) {
        let cuda = node(CALL, None)?.versions.cuda();
        put(version, cuda)
    }
}
