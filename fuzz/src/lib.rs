//! What the fuzz targets do with their bytes. Requests: exactly what the property tests of `host/grpc` do, by the
//! same code, over a real server on a socket. The kernel log: what its source does with a line.

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

/// Reads each line of `data`.
///
/// # Panics
/// Where a line without the driver's words is taken for a fault: that is a finding, as every other panic is.
pub fn kernel_log(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        let parsed = device_api_kmsg::parse_line(line);
        let is_the_drivers = line.contains("NVRM:") || line.contains("nvidia-nvswitch");
        assert!(is_the_drivers || parsed.is_none(), "{parsed:?} of {line:?}");
    }
}

/// Gives `target` the files that the command line names: to repeat a finding without cargo-fuzz.
///
/// # Panics
/// As `target`, and where a file can't be read.
pub fn replay(target: impl Fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        target(&std::fs::read(path).expect("readable"));
    }
}
