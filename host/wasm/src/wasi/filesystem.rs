//! `wasi:filesystem`: nothing is preopened, so there is nothing to open anything with.

use wasmtime::component::Val;

use super::{Definition, WasiHost};

/// There is none.
pub(super) enum Descriptor {}
/// There is none.
pub(super) enum DirectoryEntryStream {}

pub(super) fn define<D: WasiHost>(to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    match (to.interface, to.item) {
        ("preopens", "get-directories") => to.answer(Val::List(Vec::new())),
        // Asks about an `error` of `wasi:io`, and no guest has one.
        ("types", "filesystem-error-code") => to.unreachable(),
        _ => Ok(false),
    }
}
