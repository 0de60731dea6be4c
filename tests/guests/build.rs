//! Finds the guests: a module for each folder with a `guest.rs` or `wasi.rs`, and the one table that names them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets it")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets it")?);
    let mut names = Vec::new();
    for entry in fs::read_dir(&here)? {
        let folder = entry?.path();
        let files = ["guest.rs", "wasi.rs"].map(|file| folder.join(file));
        if let Some(file) = files.into_iter().find(|file| file.is_file()) {
            let name = folder.file_name().context("a folder without a name")?;
            names.push((
                name.to_str()
                    .context("a folder's name is no UTF-8")?
                    .to_owned(),
                file,
            ));
        }
    }
    names.sort_unstable();
    let (mut modules, mut arms) = (String::new(), String::new());
    for (name, file) in names {
        let module = name.replace('-', "_");
        writeln!(modules, "#[path = {file:?}]\nmod {module};")?;
        writeln!(arms, "{name:?} => made::<{module}::Guest>(),")?;
    }
    let table = format!(
        "{modules}\nfn made<G: Hostile + Default + 'static>() -> Option<Box<dyn Hostile>> {{\n Some(Box::new(G::default()))\n}}\n\n/// The guest of a folder.\npub(crate) fn guest(name: &str) -> Option<Box<dyn Hostile>> {{\n\
         match name {{\n{arms}_ => None,\n}}\n}}\n"
    );
    // Cargo's own rule watches the whole package when a build script says nothing.
    fs::write(out.join("kit.rs"), table).context("cannot write kit.rs")
}
