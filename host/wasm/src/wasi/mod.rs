//! WASI 0.2 for components that a WASI toolchain built, inert: everything links, nothing reaches out.
//!
//! | package | what a guest finds |
//! | --- | --- |
//! | `cli` | no environment, no arguments, standard input at its end; output to [`WasiHost::line`]; `exit` traps |
//! | `clocks` | the wall clock of the call; a monotonic one that advances by being read or waited on |
//! | `filesystem` | nothing preopened, so there is no descriptor to call anything with |
//! | `io` | streams and pollables; a wait ends at once, and the clock has jumped |
//! | `random` | numbers from a seed that the host gives to each call |
//! | `sockets` | `access-denied` |
//!
//! **Invariant:** no file of this folder names `std::fs`, `std::net`, `std::env`, a clock or a source of
//! entropy, and nothing waits. That is why these are not the functions of `wasmtime-wasi`
//! (docs/adr/0010).
//!
//! A component gets the functions that it imports and no others, so one without WASI pays nothing, and
//! any patch version of 0.2 links. What is not in [`INTERFACES`] (`wasi:http`, …) is refused by name.

mod cli;
mod clocks;
mod filesystem;
mod io;
mod lines;
mod random;
mod sockets;

use std::fmt;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Linker, LinkerInstance, ResourceTable, ResourceType, Val, types};
use wasmtime::{StoreContextMut, format_err};

use crate::meter::Ctx;
use lines::Lines;

/// What a [`World`](crate::World) with WASI offers besides its own interfaces, in every version 0.2.n.
/// The functions are those of 0.2.12, without the unstable ones.
pub const INTERFACES: &[&str] = &[
    "wasi:cli/environment@0.2.0",
    "wasi:cli/exit@0.2.0",
    "wasi:cli/stderr@0.2.0",
    "wasi:cli/stdin@0.2.0",
    "wasi:cli/stdout@0.2.0",
    "wasi:cli/terminal-input@0.2.0",
    "wasi:cli/terminal-output@0.2.0",
    "wasi:cli/terminal-stderr@0.2.0",
    "wasi:cli/terminal-stdin@0.2.0",
    "wasi:cli/terminal-stdout@0.2.0",
    "wasi:clocks/monotonic-clock@0.2.0",
    "wasi:clocks/wall-clock@0.2.0",
    "wasi:filesystem/preopens@0.2.0",
    "wasi:filesystem/types@0.2.0",
    "wasi:io/error@0.2.0",
    "wasi:io/poll@0.2.0",
    "wasi:io/streams@0.2.0",
    "wasi:random/insecure@0.2.0",
    "wasi:random/insecure-seed@0.2.0",
    "wasi:random/random@0.2.0",
    "wasi:sockets/instance-network@0.2.0",
    "wasi:sockets/ip-name-lookup@0.2.0",
    "wasi:sockets/network@0.2.0",
    "wasi:sockets/tcp@0.2.0",
    "wasi:sockets/tcp-create-socket@0.2.0",
    "wasi:sockets/udp@0.2.0",
    "wasi:sockets/udp-create-socket@0.2.0",
];

/// Where a guest wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What the data of a world with WASI does. Nothing here may block.
pub trait WasiHost: Send + 'static {
    fn wasi(&mut self) -> &mut Wasi;

    /// Unix time of the call at hand, in milliseconds. The same in a replay.
    fn now_ms(&self) -> u64;

    /// What the call's random numbers come from. The same in a replay, and in a warm or a fresh instance.
    fn seed(&self) -> u64;

    /// A line that is not empty, without its end: untrusted, of 1 KiB at most.
    fn line(&mut self, stream: Stream, text: &str);
}

/// What WASI remembers of one instance. Allocates nothing before a guest asks for something.
#[derive(Default)]
pub struct Wasi {
    pollables: ResourceTable,
    stdout: Lines,
    stderr: Lines,
    /// By how much the monotonic clock is ahead of the call's time.
    elapsed_ns: u64,
    /// State of the generator; none before its first number in a call.
    random: Option<u64>,
}

impl Wasi {
    /// A new call: clock and random numbers begin again, so that they depend on the call alone.
    pub fn begin(&mut self) {
        self.elapsed_ns = 0;
        self.random = None;
    }

    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl fmt::Debug for Wasi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wasi")
            .field("elapsed_ns", &self.elapsed_ns)
            .finish_non_exhaustive()
    }
}

/// Hands on what was written without an end of line. To be called when a call is over.
pub fn flush<D: WasiHost>(data: &mut D) {
    for stream in [Stream::Stdout, Stream::Stderr] {
        if let Some(text) = data.wasi().lines(stream).take() {
            data.line(stream, &text);
        }
    }
}

/// Defines what `component` imports of WASI.
///
/// # Errors
/// It imports a function that no stable version of its interface has.
pub fn add_to_linker<D: WasiHost>(
    linker: &mut Linker<Ctx<D>>,
    component: &types::Component,
) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    for (name, item) in component.imports(&engine) {
        let Some((package, interface)) = offered(name) else {
            continue;
        };
        let ComponentItem::ComponentInstance(wanted) = item.ty else {
            continue;
        };
        let mut instance = linker.instance(name)?;
        for (item, extern_) in wanted.exports(&engine) {
            let mut to = Definition {
                interface,
                item,
                instance: &mut instance,
            };
            let is_known = match extern_.ty {
                ComponentItem::Resource(_) => resource(package, &mut to)?,
                ComponentItem::ComponentFunc(_) => function(package, &mut to)?,
                // Types need no definition; an interface holds nothing else.
                ComponentItem::Type(_)
                | ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::ComponentInstance(_) => true,
            };
            if !is_known {
                return Err(format_err!(
                    "{name} has no {item} in WASI 0.2.12: build it for a stable version of WASI 0.2"
                ));
            }
        }
    }
    Ok(())
}

/// Package and interface of what is in [`INTERFACES`], in some version 0.2.n.
fn offered(name: &str) -> Option<(&str, &str)> {
    let (path, version) = name.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    let is_release = patch.bytes().all(|byte| byte.is_ascii_digit());
    let is_known = INTERFACES.iter().any(|known| {
        known
            .split_once('@')
            .is_some_and(|(known, _)| known == path)
    });
    (is_release && is_known).then(|| path.split_once('/'))?
}

/// One thing to define, and where.
struct Definition<'a, 'l, D: 'static> {
    interface: &'a str,
    item: &'a str,
    instance: &'a mut LinkerInstance<'l, Ctx<D>>,
}

fn function<D: WasiHost>(package: &str, to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    if to.is_of_a_resource_that_is_never_handed_out() {
        return to.unreachable();
    }
    match package {
        "wasi:cli" => cli::define(to),
        "wasi:clocks" => clocks::define(to),
        "wasi:filesystem" => filesystem::define(to),
        "wasi:io" => io::define(to),
        "wasi:random" => random::define(to),
        "wasi:sockets" => sockets::define(to),
        _ => Ok(false),
    }
}

/// Kinds of resources that no function here ever returns. Their methods can't be called, as a guest
/// has no handle to call them with; the component model checks that before the host hears of it.
const NEVER_HANDED_OUT: &[&str] = &[
    "descriptor",
    "directory-entry-stream",
    "error",
    "incoming-datagram-stream",
    "outgoing-datagram-stream",
    "resolve-address-stream",
    "tcp-socket",
    "terminal-input",
    "terminal-output",
    "udp-socket",
];

fn resource<D: WasiHost>(package: &str, to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    let ty = match (package, to.item) {
        ("wasi:cli", "terminal-input") => ResourceType::host::<cli::TerminalInput>(),
        ("wasi:cli", "terminal-output") => ResourceType::host::<cli::TerminalOutput>(),
        ("wasi:filesystem", "descriptor") => ResourceType::host::<filesystem::Descriptor>(),
        ("wasi:filesystem", "directory-entry-stream") => {
            ResourceType::host::<filesystem::DirectoryEntryStream>()
        }
        // `use` repeats a resource in the interface that uses it.
        (_, "pollable") => {
            to.instance.resource(
                to.item,
                ResourceType::host::<io::Pollable>(),
                io::drop_pollable,
            )?;
            return Ok(true);
        }
        (_, "error") => ResourceType::host::<io::Error>(),
        (_, "input-stream") => ResourceType::host::<io::InputStream>(),
        (_, "output-stream") => ResourceType::host::<io::OutputStream>(),
        ("wasi:sockets", "network") => ResourceType::host::<sockets::Network>(),
        ("wasi:sockets", "tcp-socket") => ResourceType::host::<sockets::TcpSocket>(),
        ("wasi:sockets", "udp-socket") => ResourceType::host::<sockets::UdpSocket>(),
        ("wasi:sockets", "incoming-datagram-stream") => {
            ResourceType::host::<sockets::IncomingDatagramStream>()
        }
        ("wasi:sockets", "outgoing-datagram-stream") => {
            ResourceType::host::<sockets::OutgoingDatagramStream>()
        }
        ("wasi:sockets", "resolve-address-stream") => {
            ResourceType::host::<sockets::ResolveAddressStream>()
        }
        _ => return Ok(false),
    };
    to.instance.resource(to.item, ty, |_, _| Ok(()))?;
    Ok(true)
}

impl<D: WasiHost> Definition<'_, '_, D> {
    /// `[method]tcp-socket.accept` and the like.
    fn is_of_a_resource_that_is_never_handed_out(&self) -> bool {
        let resource = self
            .item
            .strip_prefix("[method]")
            .and_then(|method| method.split_once('.'));
        resource.is_some_and(|(resource, _)| NEVER_HANDED_OUT.contains(&resource))
    }

    /// `work` answers with the results as a tuple; the host call is charged before.
    fn wrap<P, R>(
        &mut self,
        work: impl Fn(&mut D, P) -> wasmtime::Result<R> + Send + Sync + 'static,
    ) -> wasmtime::Result<bool>
    where
        P: wasmtime::component::ComponentNamedList + wasmtime::component::Lift + 'static,
        R: wasmtime::component::ComponentNamedList + wasmtime::component::Lower + 'static,
    {
        self.instance.func_wrap(
            self.item,
            move |mut store: StoreContextMut<'_, Ctx<D>>, params: P| {
                work(charged(&mut store)?, params)
            },
        )?;
        Ok(true)
    }

    /// Answers the same, whatever it is asked. The linker takes the function's type from the component.
    fn answer(&mut self, answer: Val) -> wasmtime::Result<bool> {
        self.instance
            .func_new(self.item, move |mut store, _, params, results| {
                charged(&mut store)?;
                for param in params {
                    // Untyped, a borrow is ours to end, or the guest's call fails.
                    if let Val::Resource(borrowed) = param {
                        borrowed.resource_drop(&mut store)?;
                    }
                }
                if let Some(result) = results.first_mut() {
                    *result = answer.clone();
                }
                Ok(())
            })?;
        Ok(true)
    }

    fn unreachable(&mut self) -> wasmtime::Result<bool> {
        let item = self.item.to_owned();
        self.instance
            .func_new(self.item, move |mut store, _, _, _| {
                charged(&mut store)?;
                Err(format_err!(
                    "{item} was called on what was never handed out"
                ))
            })?;
        Ok(true)
    }
}

/// `err(code)` of a `result<_, enum>`.
fn refusal(code: &str) -> Val {
    Val::Result(Err(Some(Box::new(Val::Enum(code.to_owned())))))
}

fn charged<'a, D>(store: &'a mut StoreContextMut<'_, Ctx<D>>) -> wasmtime::Result<&'a mut D> {
    let ctx = store.data_mut();
    ctx.charge_host_call()?;
    Ok(&mut ctx.data)
}
