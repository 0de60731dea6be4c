//! A simulated NVML: a shared library that exports the C ABI of `libnvidia-ml.so.1`, backed by a
//! node of GPUs that only exist in memory and break on command.
//!
//! Loaded with no configuration it is 8 healthy `NVIDIA H100 80GB HBM3`. A consumer loads it as
//! it loads the real library (`dlopen` of `target/<profile>/libnvml_sim.so`, see
//! [`find_library`]), so the code under test is the code that runs in production.
//!
//! | environment | meaning | default |
//! | --- | --- | --- |
//! | `NVML_SIM_PROFILE` | `a100`, `h100`, `h200`, `b200`, `gb200`, `v100` (see [`profile`]) | `h100`, or the scenario's |
//! | `NVML_SIM_GPUS` | how many GPUs, 1 to 64 | 8, or the scenario's |
//! | `NVML_SIM_DRIVER` | version of driver and library, from branch 450 on | `580.82.07` |
//! | `NVML_SIM_SOCKET` | Unix socket to take commands on (see [`control`]) | none |
//! | `NVML_SIM_KMSG` | FIFO or file that gets the kernel's lines | none |
//! | `NVML_SIM_KMSG_FORMAT` | `plain`, or `records` as `/dev/kmsg` has them | `plain` |
//! | `NVML_SIM_SCENARIO` | file that is played from the start (see [`scenario`]) | none |
//! | `NVML_SIM_SPEED` | of the scenario's clock; 0: moved by command alone | 1 |
//!
//! It is read at the first `nvmlInit`; a value that can't be used is one line on stderr and
//! `NVML_ERROR_UNKNOWN`.
//!
//! # How to know that it is simulated
//! The library exports one symbol more than NVML: `const char *nvmlSimIdentity(void)`, which
//! answers for example `nvml-sim 0.1.0`. **That symbol is the marker**: who finds it
//! ([`IDENTITY_SYMBOL`]) treats everything the library says as a drill. Names, UUIDs and PCI
//! addresses are deliberately those of a real node and prove nothing.
//!
//! # What is like the real thing
//! Return codes follow nvml.h: `UNINITIALIZED` before `nvmlInit`, which is counted;
//! `INVALID_ARGUMENT` for a null pointer or a foreign handle; `GPU_IS_LOST` from every call on a
//! lost GPU, and once from a waiting event set, not saying which; of a board that was replaced, from
//! its old handles. What a board doesn't have is `NOT_SUPPORTED`. The state belongs to the driver: it outlives `nvmlShutdown`
//! and `dlclose`, and ends with the process.

mod abi;
mod clock;
pub mod control;
mod environment;
mod events;
pub mod figures;
mod kmsg;
mod node;
pub mod old_driver;
pub mod profile;
pub mod scenario;
mod sim;

use std::io;
use std::path::PathBuf;

/// The symbol that only the simulated library has.
pub const IDENTITY_SYMBOL: &str = "nvmlSimIdentity";

/// What `nvmlSimIdentity` answers.
pub const IDENTITY: &str = concat!("nvml-sim ", env!("CARGO_PKG_VERSION"));

/// The built shared library that belongs to the running executable: beside it, in `deps/`, or,
/// for a test, in the folder above. The newest, as a build leaves older ones lying about.
///
/// # Errors
/// `NotFound` if it was not built.
pub fn find_library() -> io::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let built = |path: &PathBuf| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|folder| {
            [
                folder.join("libnvml_sim.so"),
                folder.join("deps/libnvml_sim.so"),
            ]
        })
        .filter_map(|path| Some((built(&path)?, path)))
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| {
            let message = format!(
                "no libnvml_sim.so near {}: run `cargo build -p nvml-sim`",
                executable.display()
            );
            io::Error::new(io::ErrorKind::NotFound, message)
        })
}
