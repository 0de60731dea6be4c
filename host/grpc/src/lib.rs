//! The gRPC face of the daemon: both dialects over one store, on Unix sockets and on TCP.
//!
//! ```text
//! bind() ─▶ Bound ─▶ serve()
//!                      accept (incoming, conn) ─▶ who is it (peer) ─▶ one RPC (native/, upstream/)
//!                      ─▶ Context: may it, how long, what came of it ─▶ the port core::ports::Devices
//! ```
//!
//! **Invariant:** [`context::Context`] is the only way from a service to the store, so that
//! authorisation, metrics, watch limits and shutdown hold for each method of each dialect alike.
//!
//! **Invariant:** no dialect knows the other. What both need is in [`fields`] and [`watch`].

mod conn;
mod context;
mod fields;
mod incoming;
mod listen;
mod native;
mod observe;
mod peer;
mod server;
mod status;
mod upstream;
mod watch;

pub use listen::{BindError, Bound, GrpcConfig, bind};
pub use observe::RpcObserver;
pub use server::{ServeError, serve};
