//! The services over real sockets, with the generated clients, on a small second store.

mod access;
mod harness;
mod introspection;
mod native;
mod observer;
mod providers;
mod shutdown;
mod store;
mod upstream;
mod watch;
