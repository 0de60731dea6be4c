//! A FIFO that nobody writes to: who opens it to read waits for ever.
//!
//! Must come of it: refused at load, naming what it is.

use std::path::Path;

use anyhow::Result;
use rustix::fs::{CWD, FileType, Mode, mknodat};

pub(super) fn place(at: &Path) -> Result<()> {
    Ok(mknodat(
        CWD,
        at,
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )?)
}
