//! The kernel log as a source of XIDs (design N4), beside NVML: it tells what NVML can't, above all
//! once a GPU has fallen off the bus.
//!
//! [`parse_line`] reads one line, pure, in every form of `data/xid-kmsg-samples.tsv`; [`KernelLog`]
//! follows `/dev/kmsg`, a FIFO or a file on a thread of its own and hands observations to the sink.
//!
//! **Who may be believed.** `/dev/kmsg` says whether the kernel or a process wrote a record. What a
//! process wrote is taken for an injected fault, a drill (design N8). A log *file* is as honest as
//! whoever writes it: lines of other programs (`myapp: NVRM: Xid …`) are left alone, but a process
//! that logs under the name `kernel` can't be told from the kernel there.

mod assemble;
mod counts;
mod follow;
mod kernel_log;
mod lines;
mod parse;
mod parsed;
mod prefix;
mod source;

pub use counts::Counts;
pub use kernel_log::{KernelLog, LogStatus, StartError};
pub use lines::LINE_BYTES_MAX;
pub use parse::parse_line;
pub use parsed::{Identity, Lost, NvLink, Parsed, Recovery, Sxid, Xid};
