//! What `device_api_server_build_info` tells: the compiler, the target, and the revision where whoever builds names it
//! (`DEVICE_API_REVISION`; the checkout is not asked, as it may have changes that are nobody's revision).

use std::env;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEVICE_API_REVISION");
    let revision = env::var("DEVICE_API_REVISION").unwrap_or_default();
    let revision = if revision.is_empty() {
        "unknown"
    } else {
        &revision
    };
    let version = Command::new(env::var("RUSTC")?).arg("--version").output()?;
    let version = String::from_utf8(version.stdout)?;
    // `rustc 1.95.0 (…)`
    let version = version.split(' ').nth(1).ok_or("no version of rustc")?;
    println!("cargo::rustc-env=BUILD_REVISION={revision}");
    println!("cargo::rustc-env=BUILD_RUSTC={}", version.trim());
    println!("cargo::rustc-env=BUILD_TARGET={}", env::var("TARGET")?);
    Ok(())
}
