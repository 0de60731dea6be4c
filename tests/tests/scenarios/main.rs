//! The shipped scenarios, each played under the daemon: what conditions, incidents and advice it comes to at each of its
//! stations (`tests/fixtures/scenarios/`, issue 5). The simulator's own tests play them on the library alone.
//!
//! A scenario's clock stands still and is moved by command, once the daemon is where the station before brings it; so
//! nothing here waits for a time, and a station that the daemon does not come to is a failure that says where it is.

mod driver;
mod links;
mod memory;
mod partitions;
mod stage;
