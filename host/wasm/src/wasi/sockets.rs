//! `wasi:sockets`: `access-denied`. A network may be named, but no socket is ever made on it.

use wasmtime::component::Resource;

use super::{Definition, WasiHost, refusal};

/// Has no socket and resolves no name.
pub(super) enum Network {}
/// There is none.
pub(super) enum TcpSocket {}
/// There is none.
pub(super) enum UdpSocket {}
/// There is none.
pub(super) enum IncomingDatagramStream {}
/// There is none.
pub(super) enum OutgoingDatagramStream {}
/// There is none.
pub(super) enum ResolveAddressStream {}

pub(super) fn define<D: WasiHost>(to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    match (to.interface, to.item) {
        ("instance-network", "instance-network") => {
            to.wrap(|_, (): ()| Ok((Resource::<Network>::new_own(0),)))
        }
        ("tcp-create-socket", "create-tcp-socket")
        | ("udp-create-socket", "create-udp-socket")
        | ("ip-name-lookup", "resolve-addresses") => to.answer(refusal("access-denied")),
        _ => Ok(false),
    }
}
