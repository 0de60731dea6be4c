//! A volume that is a ConfigMap, as the kubelet writes it: `pkg/volume/util/atomic_writer.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A directory whose files are swapped all at once.
#[derive(Debug)]
pub struct ConfigMap {
    root: PathBuf,
    generation: u32,
    shown: BTreeSet<String>,
}

impl ConfigMap {
    /// # Errors
    /// The directory is there already, or can't be made.
    pub fn mount(root: PathBuf, files: &[(&str, &[u8])]) -> Result<Self> {
        std::fs::create_dir(&root)?;
        let mut map = Self {
            root,
            generation: 0,
            shown: BTreeSet::new(),
        };
        map.write(files)?;
        Ok(map)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same volume, found at another place.
    #[must_use]
    pub fn at(self, root: PathBuf) -> Self {
        Self { root, ..self }
    }

    /// A new directory with all files, `..data` made to point to it in one step, then the links that are
    /// seen, and the old directory goes.
    ///
    /// # Errors
    /// A step fails.
    pub fn write(&mut self, files: &[(&str, &[u8])]) -> Result<()> {
        let old = std::fs::read_link(self.root.join("..data")).ok();
        self.generation += 1;
        let new = format!("..2026_11_21_10_00_00.{:09}", self.generation);
        let folder = self.root.join(&new);
        std::fs::create_dir(&folder)?;
        let files: BTreeMap<&str, &[u8]> = files.iter().copied().collect();
        for (file, bytes) in &files {
            std::fs::write(folder.join(file), bytes)?;
        }
        let temporary = self.root.join("..data_tmp");
        symlink(&new, &temporary)?;
        std::fs::rename(&temporary, self.root.join("..data"))?;
        for file in files.keys() {
            if self.shown.insert((*file).to_owned()) {
                symlink(Path::new("..data").join(file), self.root.join(file))?;
            }
        }
        let gone = self
            .shown
            .iter()
            .filter(|file| !files.contains_key(file.as_str()));
        for file in gone {
            std::fs::remove_file(self.root.join(file))?;
        }
        self.shown.retain(|file| files.contains_key(file.as_str()));
        if let Some(old) = old {
            std::fs::remove_dir_all(self.root.join(old))?;
        }
        Ok(())
    }
}
