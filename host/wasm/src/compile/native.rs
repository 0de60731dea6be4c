//! All `unsafe` of this crate: loading compiled code, and dropping what a process was born with.

#![expect(
    unsafe_code,
    reason = "machine code can't be checked by whoever loads it; docs/adr/0011 says why this may"
)]

use std::fs;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use wasmtime::component::Component;

use crate::compile::seal::Code;

/// Makes a component of compiled code; takes well under a millisecond for a small one.
///
/// # Errors
/// The code is for another engine, or is none.
pub(super) fn component(engine: &wasmtime::Engine, code: &Code) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must be what `Engine::precompile_component` made, unchanged. A `Code` comes
    // from `Seal::open` alone, which is given two kinds of bytes: the answer of a process that this
    // one started from its own program a moment ago, and a file of a directory that belongs to this
    // user and that nobody else may enter, written there by us from such an answer. `open` has held
    // SHA-256, component, engine and format against what was expected, so bytes that a disk damaged,
    // or that another version wrote, do not get here. Whoever can forge them runs as this user, and
    // could as well write to this process.
    unsafe { Component::deserialize(engine, code.as_bytes()) }
}

/// Closes all descriptors but the standard three. To be called first thing in a process's `main`: std
/// marks what it opens, but a C library in the parent may not have, and a `/dev/nvidia0` held by a
/// compiler keeps the driver from being released.
pub(super) fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The directory's own number is among them, and by now closed.
        if fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok() {
            // SAFETY: the descriptor is open, as was just seen, and nobody's: this process has one
            // thread, which has just begun and owns none of them.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}
