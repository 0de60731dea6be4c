//! A file that is rewritten without an end, now a good component and now its first half, while the daemon
//! reads it. It is never put in place as a whole: that would be a swap.
//!
//! Must come of it: whatever was read is loaded or refused as a whole, hashed from the bytes compiled.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;

pub(super) fn place(at: &Path) -> Result<()> {
    std::fs::write(at, crate::guests::SLOW_GUEST)?;
    let at = at.to_owned();
    std::thread::Builder::new()
        .name("rewrites".to_owned())
        .spawn(move || {
            // Ends when the file is taken away.
            while let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(&at) {
                for part in crate::guests::SLOW_GUEST.chunks(4096) {
                    if file.write_all(part).is_err() {
                        return;
                    }
                }
            }
        })?;
    Ok(())
}
