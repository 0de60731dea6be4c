//! The daemon; all of it is in `host/runtime`.

use std::process::ExitCode;

fn main() -> ExitCode {
    device_api_runtime::main()
}
