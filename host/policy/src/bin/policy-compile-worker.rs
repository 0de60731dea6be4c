//! The compiler process alone, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    device_api_policy::compile_worker()
}
