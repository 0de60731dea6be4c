//! The gRPC face of the daemon: both dialects over one store, on Unix sockets and on TCP.
//!
//! ```text
//! bind() ─▶ Bound ─▶ serve()
//!                      accept (incoming, slots) ─▶ hello (conn, tls) ─▶ who is it (peer)
//!                      ─▶ calls: its deadline, its size, what came of it ─▶ one RPC (native/, upstream/)
//!                      ─▶ Context: may it (audit), how many ─▶ the port core::ports::Devices
//! ```
//!
//! **Invariant:** [`context::Context`] is the only way from a service to the store, so that
//! authorisation, audit, watch limits and shutdown hold for each method of each dialect alike.
//!
//! **Invariant:** no dialect knows the other. What both need is in [`fields`] and [`watch`].

mod audit;
mod budget;
mod calls;
mod conn;
mod context;
mod fields;
mod incoming;
mod limits;
mod listen;
mod methods;
mod native;
mod observe;
mod peer;
mod server;
mod slots;
mod status;
mod subject;
mod tls;
mod upstream;
mod watch;

pub use limits::fixed_limits;
pub use listen::{BindError, Bound, GrpcConfig, PlainTcp, bind};
pub use observe::RpcObserver;
pub use peer::RefusalReason;
pub use server::{ServeError, serve};
pub use slots::Turned;
pub use tls::{TlsError, TlsFiles, TlsHealth};
