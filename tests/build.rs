//! Builds the guest fixtures of `tests/guests/`: real components, from source.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};
use guest_build::{Guest, components};

#[path = "guests/assemble.rs"]
mod assemble;

const SLOW: &str = "slow-guest";
const TALLY: &str = "tally-guest";
const HOSTILE: &str = "hostile-guests";

/// The folder of the last holds all others: a change in any of them builds again.
const GUESTS: [Guest; 3] = [
    Guest {
        package: SLOW,
        folder: "tests/guests/slow",
    },
    Guest {
        package: TALLY,
        folder: "tests/guests/tally",
    },
    Guest {
        package: HOSTILE,
        folder: "tests/guests",
    },
];

/// Folders of guests that mean no harm.
fn is_harmless(folder: &str) -> bool {
    folder == "slow" || folder == "tally" || folder.starts_with("wasi-")
}

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets it")?);
    let mut source = String::new();
    let mut kit = None;
    for component in components(&GUESTS)? {
        let (package, file) = (component.package, component.file);
        if package == HOSTILE {
            kit = Some(file);
            continue;
        }
        let constant = package.replace('-', "_").to_uppercase();
        writeln!(
            source,
            "/// `{package}`, from `tests/guests/`.\npub const {constant}: &[u8] = include_bytes!({file:?});"
        )?;
    }
    fs::write(out.join("guests.rs"), source).context("cannot write guests.rs")?;
    let kit = kit.context("the hostile guests were not built")?;
    let hostile = assemble::hostile(&here.join("guests"), &out, &kit, is_harmless)?;
    fs::write(out.join("hostile.rs"), hostile).context("cannot write hostile.rs")
}
