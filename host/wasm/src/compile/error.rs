//! Why there is no compiler, or no cache. Why a component was not compiled is a
//! [`LoadError`](crate::LoadError).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A compiler can't be made with these settings. One whose cache is refused can be made without
/// [`cache_dir`](crate::compile::CompilerSettings::cache_dir), and then compiles at each start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompilerError {
    #[error("the code cache {} can't be created: create the directory it is in, or name another", path.display())]
    CacheCreate {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the code cache {} can't be opened and cleaned up: remove it, or name another", path.display())]
    CacheOpen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the code cache {} is a link or a file: name a directory itself, since links are not followed", path.display())]
    CacheKind { path: PathBuf },
    #[error(
        "the code cache {} belongs to user {owner}, and this process is user {own}: remove it, or \
         name another, since what is in it runs in this process", path.display()
    )]
    CacheOwner { path: PathBuf, owner: u32, own: u32 },
    #[error(
        "the code cache {} has mode {mode:04o}: if nobody else wrote to it, `chmod 0700` it, else \
         remove it, since what is in it runs in this process", path.display()
    )]
    CacheMode { path: PathBuf, mode: u32 },
    #[error("the code cache {} has more than {max} entries: name a directory of its own", path.display())]
    CacheCrowded { path: PathBuf, max: usize },
    #[error("the compile deadline is {given:?}: set it to between {min:?} and {max:?}")]
    Deadline {
        given: Duration,
        min: Duration,
        max: Duration,
    },
    #[error("the compile memory is {given} bytes: set it to between {min} and {max}")]
    Memory { given: u64, min: u64, max: u64 },
    #[error("the compiler can't be made ready: raise the limit on open files")]
    Files(#[source] io::Error),
}

impl CompilerError {
    /// Whether a compiler without a cache could be made.
    #[must_use]
    pub fn is_about_cache(&self) -> bool {
        match self {
            Self::CacheCreate { .. }
            | Self::CacheOpen { .. }
            | Self::CacheKind { .. }
            | Self::CacheOwner { .. }
            | Self::CacheMode { .. }
            | Self::CacheCrowded { .. } => true,
            Self::Deadline { .. } | Self::Memory { .. } | Self::Files(_) => false,
        }
    }
}
