//! Which of the Rust guests a component is, written into it; for `tests/build.rs` and the harness.

use anyhow::{Result, bail, ensure};

/// Over what their crate has in its place, a folder's name is written.
const WHICH: &[u8; 48] = b"<hostile-guest: its folder's name comes here   >";

/// The component of all Rust guests as this one of them.
///
/// # Errors
/// It is no such component, or the name is too long.
pub(crate) fn named(kit: &[u8], name: &str) -> Result<Vec<u8>> {
    ensure!(name.len() < WHICH.len(), "{name} is too long a name");
    let places: Vec<usize> = (0..=kit.len().saturating_sub(WHICH.len()))
        .filter(|at| kit.get(*at..at + WHICH.len()) == Some(WHICH))
        .collect();
    let [at] = *places else {
        bail!(
            "the crate of the Rust guests has its placeholder {} times, not once",
            places.len()
        );
    };
    let mut bytes = kit.to_vec();
    let padded = name.bytes().chain(std::iter::repeat(0));
    for (byte, new) in bytes.iter_mut().skip(at).take(WHICH.len()).zip(padded) {
        *byte = new;
    }
    Ok(bytes)
}
