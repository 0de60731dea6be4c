//! What can go wrong, one variant per failed operation. `Display` is one line that says what to do
//! and never repeats its source.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::LimitError;

/// An error of the engine below, with its own chain of sources.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The engine can't run on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error("the WebAssembly engine can't be configured for this machine")]
    Configure(#[source] BoxError),
    #[error(
        "the thread that enforces deadlines can't be started: check the process and thread limits"
    )]
    Ticker(#[source] std::io::Error),
}

/// A file that can't become a [`Program`](crate::Program).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("its limits are not usable")]
    Limits(#[from] LimitError),
    #[error(
        "is {bytes} bytes, and at most {max} are accepted: strip it, or raise component-bytes-max"
    )]
    TooLarge { bytes: usize, max: usize },
    #[error("is cut off after {bytes} bytes: copy it again")]
    Truncated { bytes: usize },
    #[error("is not a WebAssembly component but {found}")]
    NotWasm { found: &'static str },
    #[error(
        "is a core WebAssembly module, not a component: build it with a component toolchain, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error(
        "has the WebAssembly binary version {version:#010x}, and this host reads components of version 0x0001000d: \
         build it with a newer or older component toolchain"
    )]
    BinaryVersion { version: u32 },
    #[error(
        "is not a valid component, or uses a WebAssembly feature that this host keeps off: rebuild it"
    )]
    Invalid(#[source] BoxError),
    #[error(
        "made the compiler fail ({message}): report it with the file, and use another build meanwhile"
    )]
    CompilerPanic { message: String },
    #[error(
        "took longer than {limit:?} to compile ({cpu:?} of processor time): make it smaller, or raise \
         --limit compile-deadline"
    )]
    CompileDeadline {
        limit: Duration,
        /// What the process got of it: much less than `limit` on a starved node.
        cpu: Duration,
    },
    #[error(
        "needs more than {} MiB of memory to compile, which is what the compiler may use here: make it smaller, or \
         raise the container's memory limit",
        limit_bytes >> 20
    )]
    CompileMemory { limit_bytes: u64 },
    #[error("becomes {bytes} bytes of code, and at most {max} are accepted: make it smaller")]
    CodeTooLarge { bytes: u64, max: u64 },
    /// `said`: the first words of its standard error, or nothing.
    #[error(
        "made the compiler process end with {how}{}{said}: if that was not the system for want of \
         memory, report it with the file, and use another build meanwhile",
        if said.is_empty() { "" } else { ", saying " }
    )]
    WorkerDied { how: String, said: String },
    #[error(
        "is not compiled, since {} can't be started: check that it is there and executable, and the \
         limit on processes", program.display()
    )]
    WorkerStart {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "is not compiled, since the pipes to {} failed: check the limit on open files and the memory left",
        program.display()
    )]
    WorkerPipe {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "is not compiled, since the compiler process could not make itself ready ({what}): report it \
         with the kernel's version"
    )]
    WorkerSetup { what: String },
    #[error(
        "is not compiled, since {} did not answer as a compiler of this version does ({what}): name \
         the daemon's own program", program.display()
    )]
    WorkerAnswer { program: PathBuf, what: String },
    #[error("is not compiled, since the daemon is stopping")]
    Stopped,
    #[error("is compiled later, since others go first")]
    PutOff,
    /// Told by those that compile beside: it is asked for again once that is done.
    #[error("is being compiled")]
    Compiling,
    /// What came of it when it was compiled before; it would be the same.
    #[error(transparent)]
    Before(Arc<LoadError>),
    #[error("is built for {name}, this host offers {offered}: rebuild it against {offered}")]
    Version { name: String, offered: String },
    #[error("imports {names}, which this host does not offer: {hint}")]
    Import { names: String, hint: String },
    #[error("does not export {name}, which the world {world} requires: it exports {found}")]
    Export {
        name: &'static str,
        world: &'static str,
        found: String,
    },
    #[error(
        "does not fit the world {world}: rebuild it against the interface that this host offers"
    )]
    Link {
        world: &'static str,
        #[source]
        source: BoxError,
    },
}

impl LoadError {
    /// Whether the same bytes may fare better in a while: the machine was short of something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::WorkerDied { .. }
            | Self::WorkerStart { .. }
            | Self::WorkerPipe { .. }
            | Self::Stopped
            | Self::PutOff
            | Self::Compiling => true,
            Self::CompileDeadline { limit, cpu } => *cpu < *limit / 2,
            Self::Before(error) => error.is_transient(),
            Self::Limits(_)
            | Self::TooLarge { .. }
            | Self::Truncated { .. }
            | Self::NotWasm { .. }
            | Self::CoreModule
            | Self::BinaryVersion { .. }
            | Self::Invalid(_)
            | Self::CompilerPanic { .. }
            | Self::CompileMemory { .. }
            | Self::CodeTooLarge { .. }
            | Self::WorkerSetup { .. }
            | Self::WorkerAnswer { .. }
            | Self::Version { .. }
            | Self::Import { .. }
            | Self::Export { .. }
            | Self::Link { .. } => false,
        }
    }
}

impl LoadError {
    /// It took the compiler all the time or memory that it may use, and would again.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "these two are bounds on the compiler; all others are about something else"
    )]
    pub fn is_too_much_to_compile(&self) -> bool {
        match self {
            Self::CompileMemory { .. } => true,
            Self::CompileDeadline { .. } => !self.is_transient(),
            Self::Before(error) => error.is_too_much_to_compile(),
            _ => false,
        }
    }
}

/// Why a start or a call gave no result. The sandbox is retired after every one of these. Texts are
/// bounded and free of control characters; they may hold the guest's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// `cpu` is what the calling thread got of the `wall` time: see [`CallError::is_starvation`].
    #[error("ran past its deadline of {limit:?} ({cpu:?} of processor time in {wall:?})")]
    Deadline {
        limit: Duration,
        wall: Duration,
        cpu: Duration,
    },
    /// `at`: the innermost functions, innermost first; empty where the component has no names.
    #[error("trapped: {message}{}{at}", if at.is_empty() { "" } else { ", in " })]
    Trap { message: String, at: String },
    /// A growth was refused, and the guest did not get over it.
    #[error(
        "needed {wanted_bytes} bytes of memory, and at most {limit_bytes} are allowed (limit memory-bytes-max; {then})"
    )]
    MemoryLimit {
        wanted_bytes: usize,
        limit_bytes: usize,
        then: String,
    },
    /// The same for tables.
    #[error(
        "needed tables of {wanted} elements, and at most {limit} are allowed (limit table-elements-max; {then})"
    )]
    TableLimit {
        wanted: usize,
        limit: usize,
        then: String,
    },
    #[error("made more than {limit} host calls (limit host-calls-max)")]
    HostCalls { limit: u32 },
    #[error("handed over more than {limit_bytes} bytes at once (limit crossing-bytes-max)")]
    CrossingLimit { limit_bytes: usize },
    #[error(
        "used up its stack of {limit_bytes} bytes, which is the same for all: have it recurse less"
    )]
    Stack { limit_bytes: usize },
    /// Too many instances, memories or tables, or the system is out of memory.
    #[error("could not be instantiated: {message}")]
    Instantiate { message: String },
    /// A host function, or the caller's own closure, returned an error.
    #[error("was stopped by the host: {message}")]
    Host { message: String },
    #[error("made the host panic: {message}")]
    HostPanic { message: String },
    /// An earlier call failed; start a new sandbox from the same program.
    #[error("is retired after an earlier failure")]
    Retired,
}

impl CallError {
    /// The closed set of kinds; a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "deadline",
            Self::Trap { .. } => "trap",
            Self::MemoryLimit { .. } => "memory-limit",
            Self::TableLimit { .. } => "table-limit",
            Self::HostCalls { .. } => "host-calls",
            Self::CrossingLimit { .. } => "crossing-limit",
            Self::Stack { .. } => "stack",
            Self::Instantiate { .. } => "instantiate",
            Self::Host { .. } => "host",
            Self::HostPanic { .. } => "host-panic",
            Self::Retired => "retired",
        }
    }

    /// The limit that it ran into, as [`Limits::set`](crate::Limits::set) calls it; `is_start`: when it was
    /// started, not in a call. `None`: none, or none that can be set.
    #[must_use]
    pub fn limit_name(&self, is_start: bool) -> Option<&'static str> {
        match self {
            Self::Deadline { .. } if self.is_starvation() => None,
            Self::Deadline { .. } if is_start => Some("start-deadline"),
            Self::Deadline { .. } => Some("call-deadline"),
            Self::MemoryLimit { .. } => Some("memory-bytes-max"),
            Self::TableLimit { .. } => Some("table-elements-max"),
            Self::HostCalls { .. } => Some("host-calls-max"),
            Self::CrossingLimit { .. } => Some("crossing-bytes-max"),
            Self::Instantiate { message } => counted(message),
            Self::Trap { .. }
            | Self::Stack { .. }
            | Self::Host { .. }
            | Self::HostPanic { .. }
            | Self::Retired => None,
        }
    }

    /// True for a deadline that passed while the guest had less than half of it in processor time:
    /// the node was starved, and the guest is not to blame (design H5).
    #[must_use]
    pub fn is_starvation(&self) -> bool {
        matches!(self, Self::Deadline { limit, cpu, .. } if *cpu < *limit / 2)
    }
}

/// Of which there were too many, in the engine's words, whose type it keeps private. A test holds them.
fn counted(message: &str) -> Option<&'static str> {
    let limits = [
        ("memory count too high", "memories-max"),
        ("table count too high", "tables-max"),
        ("instance count too high", "instances-max"),
    ];
    let said = limits.iter().find(|(words, _)| message.contains(words));
    said.map(|(_, name)| *name)
}
