//! What the image holds, as far as it is here: the programs that the Dockerfile installs, from this build, and the libraries
//! that they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::binary;

use crate::dockerfile::Dockerfile;

/// What the Dockerfile's base has of these: package `libc6` and `libgcc-s1`.
const IN_THE_BASE: [&str; 4] = ["ld-linux", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];

/// As the base sets it.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct Image {
    /// From where, and where in the container.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    pub(crate) entrypoint: Vec<String>,
    /// Where a library is looked for that no path is given of.
    pub(crate) libraries: PathBuf,
}

impl Image {
    pub(crate) fn built() -> Result<Self> {
        let dockerfile = Dockerfile::read()?;
        let mut files = Vec::new();
        let mut libraries = BTreeSet::new();
        for (program, path) in dockerfile.programs()? {
            let built = binary(&program)?;
            libraries.extend(needed(&built)?);
            files.push((built, path));
        }
        for library in &libraries {
            let name = library.file_name().context("no name")?.to_string_lossy();
            ensure!(
                IN_THE_BASE.iter().any(|known| name.starts_with(known)),
                "{name} is not in the image's base"
            );
        }
        let libc = libraries.iter().find(|path| path.ends_with("libc.so.6"));
        let libc = libc.and_then(|path| path.parent()).context("no libc")?;
        let (entrypoint, libc) = (dockerfile.entrypoint()?, libc.to_owned());
        files.extend(libraries.into_iter().map(|path| (path.clone(), path)));
        Ok(Self {
            files,
            entrypoint,
            libraries: libc,
        })
    }
}

/// The files that the loader would map.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let paths = text.lines().filter_map(|line| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    });
    let paths: Vec<_> = paths.collect();
    ensure!(!paths.is_empty(), "ldd {}: {text}", program.display());
    Ok(paths)
}
