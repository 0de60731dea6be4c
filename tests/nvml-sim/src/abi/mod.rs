//! The C ABI, thin: it checks what nvml.h says is checked, and reads or changes the node.
//!
//! All `unsafe` is here. Parameters that nvml.h writes as `T *` for one result are
//! `Option<&mut MaybeUninit<T>>`, which is the same to C, so that null is a case and not a check
//! to forget. Handles are numbers dressed as pointers and never followed.
#![expect(
    non_upper_case_globals,
    reason = "the constants of nvml.h, as patterns"
)]

use std::ffi::{CStr, c_char, c_uint};
use std::mem::MaybeUninit;
use std::sync::MutexGuard;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::node::{Gpu, Node};
use crate::profile::Profile;
use crate::sim;

/// Defines exported calls. `CALL` in a body is its own symbol, for the rules that make calls
/// misbehave; `CALLS` are all symbols of the file.
macro_rules! exports {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        pub(super) const CALLS: &[&str] = &[$(stringify!($name)),*];
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> ::nvml_wrapper_sys::bindings::nvmlReturn_t {
                const CALL: &str = stringify!($name);
                let run = move || -> Result<(), super::code::Code> { $body };
                super::code::of(run())
            }
        )*
    };
}

pub(crate) mod code;
mod device;
mod events;
mod fields;
mod identity;
mod memory;
mod system;

use code::Code;

/// Whether the library exports this call.
pub(crate) fn exports(call: &str) -> bool {
    let files = [
        device::CALLS,
        events::CALLS,
        fields::CALLS,
        identity::CALLS,
        memory::CALLS,
        system::CALLS,
    ];
    files.iter().any(|calls| calls.contains(&call))
}

/// A result that C wants written somewhere.
type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

fn put<T>(out: Out<'_, T>, value: T) -> Result<(), Code> {
    out.ok_or(code::INVALID_ARGUMENT)?.write(value);
    Ok(())
}

/// Where device handles start: an address that nothing is ever mapped at, so that a consumer that
/// looks inside one finds out.
const HANDLES: usize = 0x100;

fn handle(gpu: u32) -> nvmlDevice_t {
    let index = usize::try_from(gpu).unwrap_or(usize::MAX - HANDLES);
    std::ptr::without_provenance_mut(HANDLES + index)
}

/// The GPU of a handle; it may not exist.
fn index(device: nvmlDevice_t) -> Option<u32> {
    device
        .addr()
        .checked_sub(HANDLES)
        .and_then(|index| u32::try_from(index).ok())
}

/// The node, if it is there for its callers.
fn node(call: &str, gpu: Option<u32>) -> Result<MutexGuard<'static, Node>, Code> {
    let node = sim::started()
        .ok_or(code::UNINITIALIZED)?
        .enter(call, gpu)?;
    if node.initialised() {
        Ok(node)
    } else {
        Err(code::UNINITIALIZED)
    }
}

/// Whether the node is there for its callers.
fn present(call: &str) -> Result<(), Code> {
    node(call, None).map(drop)
}

/// Reads something of a GPU that answers.
fn on_gpu<T>(
    call: &str,
    device: nvmlDevice_t,
    read: impl FnOnce(&Profile, &Gpu) -> Result<T, Code>,
) -> Result<T, Code> {
    let index = index(device);
    let node = node(call, index)?;
    let gpu = index
        .and_then(|index| node.gpu(index))
        .ok_or(code::INVALID_ARGUMENT)?;
    if gpu.lost {
        return Err(code::GPU_IS_LOST);
    }
    read(node.profile, gpu)
}

/// Writes a C string.
///
/// # Safety
/// `buffer` is null or has room for `length` bytes.
unsafe fn put_text(buffer: *mut c_char, length: c_uint, text: &str) -> Result<(), Code> {
    if buffer.is_null() {
        return Err(code::INVALID_ARGUMENT);
    }
    let room = usize::try_from(length).unwrap_or(usize::MAX);
    if text.len() >= room {
        return Err(code::INSUFFICIENT_SIZE);
    }
    // SAFETY: the text and its terminator are at most `length` bytes, which the caller has; the
    // text is ours and can't overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// Reads a C string.
///
/// # Safety
/// `text` is null or a C string.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Code> {
    if text.is_null() {
        return Err(code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so a C string by the function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| code::INVALID_ARGUMENT)
}

/// What a versioned struct has in its first field.
fn struct_version<T>(version: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX) | (version << 24)
}

/// Yes and no, as NVML has them.
fn flag(on: bool) -> nvmlReturn_t {
    u32::from(on)
}

fn check(valid: bool) -> Result<(), Code> {
    if valid {
        Ok(())
    } else {
        Err(code::INVALID_ARGUMENT)
    }
}
