//! The gRPC face of the daemon: both dialects over one store, on Unix sockets and on TCP.
//!
//! ```text
//! bind() ─▶ Bound ─▶ serve()
//!                      accept (incoming, slots) ─▶ hello (conn, handshake, tls) ─▶ who is it (peer)
//!                      ─▶ calls: may it, its deadline, its size (receive, budget) ─▶ one RPC (native/, upstream/)
//!                      ─▶ Context: may it, how many ─▶ the ports core::ports::{Devices, Policies}
//!                      ─▶ answer: what came of it, what of it is unread
//! ```
//!
//! **Invariant:** [`context::Context`] is the only way from a service to the store and to the policy host, so that
//! authorisation, audit, watch limits and shutdown hold for each method of each dialect alike. And
//! [`calls::Calls`] is the only way to a service: nothing of a request is decoded before it is known that
//! the caller may make it, that all of it is there, and that it is no larger in memory than it may be.
//!
//! **Invariant:** no dialect knows the other. What both need is in [`fields`] and [`watch`].

mod answer;
mod audit;
mod budget;
mod calls;
mod certificate;
mod conn;
mod context;
mod fields;
mod handshake;
mod incoming;
mod limits;
mod lines;
mod listen;
mod methods;
mod native;
mod observe;
mod outcome;
mod peer;
mod receive;
mod server;
mod shape;
mod slots;
mod status;
mod subject;
mod tls;
mod unsent;
mod upstream;
mod watch;

pub use context::Operated;
pub use handshake::HandshakeFailure;
pub use limits::fixed_limits;
pub use listen::{BindError, Bound, GrpcConfig, PlainTcp, SocketsHealth, bind};
pub use observe::RpcObserver;
pub use peer::RefusalReason;
pub use server::{ServeError, serve};
pub use slots::Turned;
pub use tls::{TlsError, TlsFiles, TlsHealth};
