//! What the fuzz targets do with their bytes: exactly what the property tests of `host/grpc` do, by the same
//! code, over a real server on a socket.

// Parts of the tests that the targets have no use for.
#![expect(dead_code, reason = "shared with the tests of host/grpc")]

use std::sync::OnceLock;

use tokio::runtime::Runtime;

use crate::attack::Target;

#[path = "../../host/grpc/tests/rpc/attack.rs"]
mod attack;
#[path = "../../host/grpc/tests/rpc/changes.rs"]
mod changes;
#[path = "../../host/grpc/tests/rpc/harness.rs"]
mod harness;
#[path = "../../host/grpc/tests/rpc/operated.rs"]
mod operated;
#[path = "../../host/grpc/tests/rpc/owned.rs"]
mod owned;
#[path = "../../host/grpc/tests/rpc/policy_host.rs"]
mod policy_host;
#[path = "../../host/grpc/tests/rpc/store.rs"]
mod store;
#[path = "../../host/grpc/tests/rpc/verbatim.rs"]
mod verbatim;
#[path = "../../host/grpc/tests/rpc/wellformed.rs"]
mod wellformed;

/// Sends the request that `data` makes to a method of `package`, on a server that is started once.
///
/// # Panics
/// Where the answer is none that bad input may have: that is a finding.
pub fn attack(package: &str, data: &[u8]) {
    static TARGET: OnceLock<(Runtime, Target)> = OnceLock::new();
    let (runtime, target) = TARGET.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let target = runtime.block_on(Target::start(package));
        (runtime, target)
    });
    if let Err(finding) = runtime.block_on(target.attack(data)) {
        panic!("{finding}");
    }
}

/// Sends the requests in the files that the command line names: to repeat a finding without cargo-fuzz.
///
/// # Panics
/// As [`attack`], and where a file can't be read.
pub fn replay(package: &str) {
    for path in std::env::args_os().skip(1) {
        attack(package, &std::fs::read(path).expect("readable"));
    }
}
