//! Builds the guest fixtures of `tests/guests/`: real components, from source.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};
use guest_build::{Guest, components};

const GUESTS: [Guest; 1] = [Guest {
    package: "slow-guest",
    folder: "tests/guests/slow",
}];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let mut source = String::new();
    for component in components(&GUESTS)? {
        let constant = component.package.replace('-', "_").to_uppercase();
        let (package, file) = (component.package, component.file);
        writeln!(
            source,
            "/// `{package}`, from `tests/guests/`.\npub const {constant}: &[u8] = include_bytes!({file:?});"
        )?;
    }
    fs::write(out.join("guests.rs"), source).context("cannot write guests.rs")
}
