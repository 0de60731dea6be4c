//! Compiles the vendor's XID catalogue (data/xid-catalog.csv) into a sorted table.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let catalog = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../data/xid-catalog.csv");
    println!("cargo::rerun-if-changed={}", catalog.display());

    let mut entries = Vec::new();
    let mut reader = csv::Reader::from_path(&catalog)?;
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header == name)
            .ok_or(format!("no column {name}"))
    };
    let (code, mnemonic, name) = (column("xid")?, column("mnemonic")?, column("name")?);
    let immediate = column("immediate_action")?;
    let linkage = column("xid154_linkage")?;
    for row in reader.records() {
        let row = row?;
        let field = |at: usize| row.get(at).unwrap_or_default().trim().to_owned();
        entries.push((
            field(code).parse::<u64>()?,
            field(mnemonic),
            field(name),
            field(immediate),
            !field(linkage).is_empty(),
        ));
    }
    entries.sort();

    let mut out = String::from("[\n");
    for (code, mnemonic, name, immediate, asks) in entries {
        writeln!(
            out,
            "    Entry {{ code: {code}, mnemonic: {mnemonic:?}, name: {name:?}, immediate: {immediate:?}, asks: {asks} }},"
        )?;
    }
    out.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("xid_catalog.rs"), out)?;
    Ok(())
}
