//! `wasi:io`: streams of the process, and waiting that takes no time.

use wasmtime::component::{ComponentType, Lower, Resource, Val};
use wasmtime::{StoreContextMut, format_err};

use super::clocks::{advance_to, now_ns};
use super::{Definition, Stream, WasiHost, charged};
use crate::meter::Ctx;

/// Most bytes of one write: what `check-write` permits, and WASI's own bound of a blocking one. Also
/// bounds the lines that one host call hands on.
const WRITE_BYTES_MAX: u64 = 4096;

/// Pollables that a guest may have at a time, and most of one `poll`.
const POLLABLES_MAX: usize = 1024;

/// Standard input: at its end.
pub(super) enum InputStream {}

/// Standard output or error: which one, says its representation.
pub(super) enum OutputStream {}

impl OutputStream {
    const STDERR: u32 = 1;

    pub(super) fn rep(stream: Stream) -> u32 {
        match stream {
            Stream::Stdout => 0,
            Stream::Stderr => Self::STDERR,
        }
    }

    fn stream(handle: &Resource<Self>) -> Stream {
        if handle.rep() == Self::STDERR {
            Stream::Stderr
        } else {
            Stream::Stdout
        }
    }
}

/// There is none: nothing here fails but by its end.
pub(super) enum Error {}

/// When it is ready, on the monotonic clock.
#[derive(Clone, Copy)]
pub(super) enum Pollable {
    Now,
    At { when_ns: u64 },
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "a case of the type; there is no error to give")]
    LastOperationFailed(Resource<Error>),
    #[component(name = "closed")]
    #[expect(dead_code, reason = "a case of the type; output is never closed")]
    Closed,
}

/// `stream-error.closed`.
fn closed() -> Val {
    let closed = Val::Variant("closed".to_owned(), None);
    Val::Result(Err(Some(Box::new(closed))))
}

pub(super) fn define<D: WasiHost>(to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    match (to.interface, to.item) {
        ("poll", "poll") => {
            to.wrap(|host, (list,): (Vec<Resource<Pollable>>,)| Ok((poll(host, &list)?,)))
        }
        ("poll", "[method]pollable.block") => {
            to.wrap(|host, (pollable,): (Resource<Pollable>,)| poll(host, &[pollable]).map(drop))
        }
        ("poll", "[method]pollable.ready") => {
            to.wrap(|host, (pollable,): (Resource<Pollable>,)| {
                let when_ns = when_ns(host, &pollable)?;
                Ok((when_ns <= now_ns(host),))
            })
        }
        ("streams", method) => define_stream(method, to),
        _ => Ok(false),
    }
}

fn define_stream<D: WasiHost>(
    method: &str,
    to: &mut Definition<'_, '_, D>,
) -> wasmtime::Result<bool> {
    match method {
        "[method]input-stream.read"
        | "[method]input-stream.blocking-read"
        | "[method]input-stream.skip"
        | "[method]input-stream.blocking-skip"
        | "[method]output-stream.splice"
        | "[method]output-stream.blocking-splice" => to.answer(closed()),
        "[method]input-stream.subscribe" => {
            to.wrap(|host, (_,): (Resource<InputStream>,)| Ok((subscribe(host, Pollable::Now)?,)))
        }
        "[method]output-stream.subscribe" => {
            to.wrap(|host, (_,): (Resource<OutputStream>,)| Ok((subscribe(host, Pollable::Now)?,)))
        }
        "[method]output-stream.check-write" => to.wrap(|_, (_,): (Resource<OutputStream>,)| {
            Ok((Ok::<u64, StreamError>(WRITE_BYTES_MAX),))
        }),
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => to
            .wrap(|host, (to, bytes): (Resource<OutputStream>, Vec<u8>)| {
                write(host, OutputStream::stream(&to), &bytes)?;
                Ok((Ok::<(), StreamError>(()),))
            }),
        // Lines go out when they are whole, and at the end of the call.
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            to.wrap(|_, (_,): (Resource<OutputStream>,)| Ok((Ok::<(), StreamError>(()),)))
        }
        // Zeroes are nothing that a log could show.
        "[method]output-stream.write-zeroes"
        | "[method]output-stream.blocking-write-zeroes-and-flush" => {
            to.wrap(|_, (_, len): (Resource<OutputStream>, u64)| {
                permitted(len)?;
                Ok((Ok::<(), StreamError>(()),))
            })
        }
        _ => Ok(false),
    }
}

fn permitted(len: u64) -> wasmtime::Result<()> {
    if len > WRITE_BYTES_MAX {
        return Err(format_err!(
            "it wrote {len} bytes at once, and check-write permits {WRITE_BYTES_MAX}"
        ));
    }
    Ok(())
}

fn write(host: &mut impl WasiHost, stream: Stream, bytes: &[u8]) -> wasmtime::Result<()> {
    permitted(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    for line in host.wasi().lines(stream).push(bytes) {
        host.line(stream, &line);
    }
    Ok(())
}

pub(super) fn subscribe(
    host: &mut impl WasiHost,
    pollable: Pollable,
) -> wasmtime::Result<Resource<Pollable>> {
    let pollables = &mut host.wasi().pollables;
    pollables.set_max_capacity(POLLABLES_MAX);
    pollables
        .push(pollable)
        .map_err(|_| format_err!("it has {POLLABLES_MAX} pollables already: drop some"))
}

pub(super) fn drop_pollable<D: WasiHost>(
    mut store: StoreContextMut<'_, Ctx<D>>,
    rep: u32,
) -> wasmtime::Result<()> {
    let host = charged(&mut store)?;
    let pollable = Resource::<Pollable>::new_own(rep);
    host.wasi().pollables.delete(pollable)?;
    Ok(())
}

fn when_ns(host: &mut impl WasiHost, pollable: &Resource<Pollable>) -> wasmtime::Result<u64> {
    Ok(match host.wasi().pollables.get(pollable)? {
        Pollable::Now => 0,
        Pollable::At { when_ns } => *when_ns,
    })
}

/// Which ones are ready: where none is yet, time jumps to the first that will be.
fn poll(host: &mut impl WasiHost, list: &[Resource<Pollable>]) -> wasmtime::Result<Vec<u32>> {
    if list.len() > POLLABLES_MAX {
        let many = list.len();
        return Err(format_err!(
            "it polls {many} pollables at once, and {POLLABLES_MAX} is the most"
        ));
    }
    let times = list
        .iter()
        .map(|pollable| when_ns(host, pollable))
        .collect::<wasmtime::Result<Vec<u64>>>()?;
    let first = *times
        .iter()
        .min()
        .ok_or_else(|| format_err!("it polls nothing at all, which would never end"))?;
    advance_to(host, first);
    let now = now_ns(host);
    let ready = (0..).zip(times).filter(|(_, when_ns)| *when_ns <= now);
    Ok(ready.map(|(index, _)| index).collect())
}
