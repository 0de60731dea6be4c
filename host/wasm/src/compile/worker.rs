//! The compiler process: one request, one answer, the end. It holds nothing but three pipes.
//!
//! Its limits keep a hostile component from hurting the node; they are no sandbox. A bug in the
//! compiler that a component could use would do its harm in the daemon, which runs the code.

use std::fs;
use std::io::{self, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setpriority_process, setrlimit,
};

use crate::compile::frame::{self, NO_KEY, REFUSAL_BYTES_MAX, Request, Status};
use crate::compile::seal::{Key, compatibility, sha256};
use crate::compile::{native, procfs};
use crate::engine;
use crate::sandbox::panic_message;

/// It yields to whatever serves, yet has a tenth of a processor beside one busy thread, so that a
/// busy node does not turn 10 seconds into more than the deadline.
const NICENESS: i32 = 10;

/// The first to go when the node or the container runs out of memory.
const OOM_SCORE: &str = "1000";

/// Three pipes and room for the files under `/proc` that are looked at.
const FILES_MAX: u64 = 16;

/// `main` of a compiler process: reads a component from standard input and writes its code to
/// standard output. To be called before anything else in a process that [`Compiler`] started as its
/// [`Worker`]: it closes all descriptors but the standard three.
///
/// The exit code tells whether an answer was written, a refusal included.
///
/// [`Compiler`]: crate::compile::Compiler
/// [`Worker`]: crate::compile::Worker
#[must_use]
pub fn compile_worker() -> ExitCode {
    native::close_inherited();
    // Before the first read: a parent that is gone by then is noticed by `getppid`.
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    let mut input = io::stdin().lock();
    let Ok(request) = Request::read(&mut input) else {
        // Whoever started this by hand, or a pipe that broke.
        return ExitCode::FAILURE;
    };
    let parent = getppid().map(|pid| pid.as_raw_pid());
    if tied.is_err() || parent != i32::try_from(request.parent).ok() {
        return ExitCode::FAILURE;
    }
    let (key, status, payload) = match confine(request.memory_bytes_max) {
        Ok(()) => answer(&request, &mut input),
        Err(what) => (NO_KEY, Status::Setup, what.into_bytes()),
    };
    let peak = procfs::size("self", "VmHWM").unwrap_or_default();
    match frame::answer(&mut io::stdout().lock(), key, status, peak, &payload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Bounds this process, or says what could not be.
///
/// Memory is bounded by `RLIMIT_AS`, as what is mapped now and `memory_bytes_max` more. Address space
/// is more than what is resident, so the bound errs on the safe side, and it holds at the moment of
/// the allocation, which then fails in a way that can be told; `RLIMIT_RSS` does nothing on Linux, and
/// a cgroup of its own is more than a container may make. What the allocator reserves beyond what it
/// uses is little in a process of one thread.
fn confine(memory_bytes_max: u64) -> Result<(), String> {
    // Both are courtesy: without them the other bounds still hold.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let _ = setpriority_process(None::<Pid>, NICENESS);

    let mapped = procfs::size("self", "VmSize").ok_or("how much it maps is not in /proc")?;
    let limits = [
        (Resource::As, mapped.saturating_add(memory_bytes_max)),
        (Resource::Core, 0),
        // Nothing is written but to a pipe, which this does not touch.
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES_MAX),
    ];
    for (resource, bound) in limits {
        // Where the daemon itself may have less, so may this; only root may raise it again.
        let bound = getrlimit(resource)
            .maximum
            .map_or(bound, |max| bound.min(max));
        let bound = Rlimit {
            current: Some(bound),
            maximum: Some(bound),
        };
        setrlimit(resource, bound).map_err(|error| format!("{resource:?}: {error}"))?;
    }
    // A core pattern that is a pipe ignores the limit above.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("core dumps: {error}"))
}

/// Reads the component and compiles it.
fn answer(request: &Request, input: &mut impl io::Read) -> (Key, Status, Vec<u8>) {
    let mut bytes = Vec::new();
    let wanted = usize::try_from(request.bytes).unwrap_or(usize::MAX);
    if bytes.try_reserve_exact(wanted).is_err() {
        return (NO_KEY, Status::Memory, Vec::new());
    }
    match input.take(request.bytes).read_to_end(&mut bytes) {
        Ok(read) if read == wanted => {}
        Ok(_) => return (NO_KEY, Status::Setup, b"the component was cut off".to_vec()),
        Err(error) => return (NO_KEY, Status::Setup, error.to_string().into_bytes()),
    }
    let engine = match wasmtime::Engine::new(&engine::config()) {
        Ok(engine) => engine,
        Err(error) => return (NO_KEY, Status::Setup, words(&error)),
    };
    let key = Key {
        engine: compatibility(&engine),
        component: sha256(&bytes),
    };
    let compile = || engine.precompile_component(&bytes);
    let (status, payload) = match catch_unwind(AssertUnwindSafe(compile)) {
        Ok(Ok(code)) => (Status::Code, code),
        Ok(Err(error)) if is_want_of_memory(&error) => (Status::Memory, Vec::new()),
        Ok(Err(error)) => (Status::Invalid, words(&error)),
        Err(panic) => (Status::Panic, panic_message(panic.as_ref()).into_bytes()),
    };
    (key, status, payload)
}

fn is_want_of_memory(error: &wasmtime::Error) -> bool {
    let is_refused = |error: &(dyn std::error::Error + 'static)| {
        let of_system = error.downcast_ref::<io::Error>().map(io::Error::kind);
        error.is::<wasmtime::OutOfMemory>()
            || error.downcast_ref::<Errno>() == Some(&Errno::NOMEM)
            || of_system == Some(io::ErrorKind::OutOfMemory)
    };
    error.is::<wasmtime::OutOfMemory>() || error.chain().any(is_refused)
}

/// An error with its causes, on one line and bounded: what a log line of this error would show.
fn words(error: &wasmtime::Error) -> Vec<u8> {
    let mut words = error
        .chain()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    let max = usize::try_from(REFUSAL_BYTES_MAX).unwrap_or(usize::MAX);
    words.truncate(words.floor_char_boundary(max));
    words.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_causes_and_its_bound() {
        let error = wasmtime::Error::msg("cause").context("what failed");
        assert_eq!(words(&error), b"what failed: cause");
        let long = wasmtime::Error::msg("é".repeat(4000));
        assert!(words(&long).len() <= 4096);
    }

    #[test]
    fn want_of_memory_is_told_from_a_bad_component() {
        let full = wasmtime::Error::from(io::Error::from(io::ErrorKind::OutOfMemory));
        assert!(is_want_of_memory(&full.context("mapping")));
        assert!(is_want_of_memory(&wasmtime::OutOfMemory::new(8).into()));
        assert!(!is_want_of_memory(&wasmtime::Error::msg("bad magic")));
    }
}
