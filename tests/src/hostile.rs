//! The kit of hostile guests (`tests/guests/`): each costs its own policy, and nothing else (design H5).
//!
//! [`Hostile`] is generated, a variant for each folder. `tests/tests/hostile/` says what must come of each,
//! in a match that names them all: a folder without a test does not compile.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

#[path = "../guests/name.rs"]
mod name;

include!(concat!(env!("OUT_DIR"), "/hostile.rs"));

/// The Rust guests, built for WASI.
static WASI: OnceLock<PathBuf> = OnceLock::new();

/// Says where the component of the Rust guests is that was built for `wasm32-wasip2`.
pub fn provide_wasi(kit: PathBuf) {
    // A second word is the same: all tests build it in one place.
    let _ = WASI.set(kit);
}

fn place_wasi(name: &str, at: &Path) -> Result<()> {
    let kit = WASI.get().context("the guests of WASI were not built")?;
    let kit = std::fs::read(kit).with_context(|| format!("cannot read {}", kit.display()))?;
    Ok(std::fs::write(at, name::named(&kit, name)?)?)
}

/// A number as WebAssembly's binaries have it.
fn leb128(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Appends a section.
fn section(binary: &mut Vec<u8>, id: u8, content: &[u8]) -> Result<()> {
    binary.push(id);
    binary.extend(leb128(u32::try_from(content.len())?));
    binary.extend(content);
    Ok(())
}
