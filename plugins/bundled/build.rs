//! Builds the bundled policies from `plugins/`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};
use guest_build::{Guest, components};

const GUESTS: [Guest; 2] = [
    Guest {
        package: "xid-policy",
        folder: "plugins/xid-policy",
    },
    Guest {
        package: "nvml-health",
        folder: "plugins/nvml-health",
    },
];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let mut source = String::new();
    for component in components(&GUESTS)? {
        let (name, file) = (component.package, component.file);
        let constant = name.replace('-', "_").to_uppercase();
        writeln!(
            source,
            "/// `{name}`, {} bytes.\npub const {constant}: Bundled = Bundled {{ name: {name:?}, bytes: include_bytes!({file:?}) }};",
            component.bytes,
        )?;
    }
    fs::write(out.join("policies.rs"), source).context("cannot write policies.rs")
}
