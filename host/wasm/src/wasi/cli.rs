//! `wasi:cli`: an empty environment, closed input, output line by line, an exit that is a failure.

use wasmtime::component::{Resource, Val};
use wasmtime::format_err;

use super::io::{InputStream, OutputStream};
use super::{Definition, Stream, WasiHost};

/// There is none: nothing here is a terminal.
pub(super) enum TerminalInput {}
/// There is none.
pub(super) enum TerminalOutput {}

pub(super) fn define<D: WasiHost>(to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    match (to.interface, to.item) {
        ("environment", "get-environment" | "get-arguments") => to.answer(Val::List(Vec::new())),
        ("environment", "initial-cwd") => to.answer(Val::Option(None)),
        ("exit", "exit") => to.wrap(|_, (status,): (Result<(), ()>,)| {
            exit::<()>(if status.is_ok() { "success" } else { "failure" })
        }),
        ("exit", "exit-with-code") => {
            to.wrap(|_, (code,): (u8,)| exit::<()>(&format!("code {code}")))
        }
        ("stdin", "get-stdin") => to.wrap(|_, (): ()| Ok((Resource::<InputStream>::new_own(0),))),
        ("stdout", "get-stdout") => to.wrap(|_, (): ()| Ok((output(Stream::Stdout),))),
        ("stderr", "get-stderr") => to.wrap(|_, (): ()| Ok((output(Stream::Stderr),))),
        (
            "terminal-stdin" | "terminal-stdout" | "terminal-stderr",
            "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr",
        ) => to.answer(Val::Option(None)),
        _ => Ok(false),
    }
}

fn output(stream: Stream) -> Resource<OutputStream> {
    Resource::new_own(OutputStream::rep(stream))
}

fn exit<R>(status: &str) -> wasmtime::Result<R> {
    Err(format_err!(
        "it called wasi:cli/exit ({status}): a guest answers or returns an error, it does not exit"
    ))
}
