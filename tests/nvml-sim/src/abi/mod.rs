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

use crate::node::{Gpu, Instance, Node};
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
mod ecc;
mod events;
mod fields;
mod identity;
mod load;
mod memory;
mod mig;
mod nvlink;
mod pcie;
mod system;
mod topology;

use code::Code;

/// Every call that the library exports, by subject.
const CALLS: [&[&str]; 11] = [
    ecc::CALLS,
    events::CALLS,
    fields::CALLS,
    identity::CALLS,
    load::CALLS,
    memory::CALLS,
    mig::CALLS,
    nvlink::CALLS,
    pcie::CALLS,
    system::CALLS,
    topology::CALLS,
];

/// Whether the library exports this call.
pub(crate) fn exports(call: &str) -> bool {
    CALLS.iter().any(|calls| calls.contains(&call))
}

/// A result that C wants written somewhere.
type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

fn put<T>(out: Out<'_, T>, value: T) -> Result<(), Code> {
    out.ok_or(code::INVALID_ARGUMENT)?.write(value);
    Ok(())
}

/// Where device handles start: addresses that nothing is ever mapped at, so that a consumer that
/// looks inside one finds out. Above it, 256 places for each generation of GPUs.
const HANDLES: usize = 0x100;
const GENERATION: usize = 0x100;
/// Where those of MIG devices start.
const MIG_HANDLES: usize = 0x100_0000;

/// What a handle stands for; it may not exist.
#[derive(Clone, Copy, Debug)]
enum Target {
    Gpu { index: u32, generation: u32 },
    Mig { number: u32 },
}

fn pointer(address: usize) -> nvmlDevice_t {
    std::ptr::without_provenance_mut(address)
}

fn handle(gpu: &Gpu) -> nvmlDevice_t {
    let [index, generation] = [gpu.identity.index, gpu.generation]
        .map(|number| usize::try_from(number).unwrap_or_default());
    pointer(HANDLES + generation * GENERATION + index)
}

fn mig_handle(instance: &Instance) -> nvmlDevice_t {
    pointer(MIG_HANDLES + usize::try_from(instance.number).unwrap_or_default())
}

fn target(device: nvmlDevice_t) -> Option<Target> {
    let address = device.addr();
    if let Some(number) = address.checked_sub(MIG_HANDLES) {
        let number = u32::try_from(number).ok()?;
        return Some(Target::Mig { number });
    }
    let place = address.checked_sub(HANDLES)?;
    Some(Target::Gpu {
        index: u32::try_from(place % GENERATION).ok()?,
        generation: u32::try_from(place / GENERATION).ok()?,
    })
}

/// Which GPU a handle is about, for the rules that make calls misbehave.
fn index(device: nvmlDevice_t) -> Option<u32> {
    match target(device)? {
        Target::Gpu { index, .. } => Some(index),
        Target::Mig { number } => {
            let node = sim::started()?.lock();
            node.mig(number).map(|(gpu, _)| gpu.identity.index)
        }
    }
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

/// Reads something of a GPU, or of a MIG device on it, that answers.
fn on_device<T>(
    call: &str,
    device: nvmlDevice_t,
    read: impl FnOnce(&Node, &Gpu, Option<&Instance>) -> Result<T, Code>,
) -> Result<T, Code> {
    let node = node(call, index(device))?;
    let (gpu, instance) = match target(device).ok_or(code::INVALID_ARGUMENT)? {
        Target::Gpu { index, generation } => {
            let gpu = node.gpu(index).ok_or(code::INVALID_ARGUMENT)?;
            match gpu.generation.checked_sub(generation) {
                Some(0) => (gpu, None),
                // The board that this was is not there any more.
                Some(_) => return Err(code::GPU_IS_LOST),
                None => return Err(code::INVALID_ARGUMENT),
            }
        }
        Target::Mig { number } => {
            let (gpu, instance) = node.mig(number).ok_or(code::INVALID_ARGUMENT)?;
            (gpu, Some(instance))
        }
    };
    if gpu.lost {
        return Err(code::GPU_IS_LOST);
    }
    read(&node, gpu, instance)
}

/// Reads something of a GPU that answers. A MIG device has no such thing.
fn on_gpu<T>(
    call: &str,
    device: nvmlDevice_t,
    read: impl FnOnce(&Profile, &Gpu) -> Result<T, Code>,
) -> Result<T, Code> {
    on_device(call, device, |node, gpu, instance| match instance {
        None => read(node.profile, gpu),
        Some(_) => Err(code::INVALID_ARGUMENT),
    })
}

/// Fills in a struct whose caller says in its first field which version it is.
fn fill<T>(out: Option<&mut T>, said: impl Fn(&T) -> u32, value: T) -> Result<(), Code> {
    let out = out.ok_or(code::INVALID_ARGUMENT)?;
    if said(out) != said(&value) {
        return Err(code::ARGUMENT_VERSION_MISMATCH);
    }
    *out = value;
    Ok(())
}

/// Text in a field of fixed size, with at least one terminator.
fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = c_char::from_ne_bytes([from]);
    }
    field
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

/// What the board does not have.
fn supported<T>(thing: Option<T>) -> Result<T, Code> {
    thing.ok_or(code::NOT_SUPPORTED)
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
