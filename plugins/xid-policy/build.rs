//! Turns the vendor's tables in `data/` into static ones, so that the guest parses nothing at run
//! time. A word or pattern that is not understood stops the build: a table that grew is read by a
//! person first.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

const CATALOG: &str = "../../data/xid-catalog.csv";
const NVLINK5: &str = "../../data/xid-144-150-decode.csv";
const PROFILES: &str = "../../data/xid-profiles";
/// The profiles beside the vendor's, each with its file and its static.
const TABLES: [(&str, &str); 4] = [
    ("device-plugin", "DEVICE_PLUGIN"),
    ("gke", "GKE"),
    ("eks", "EKS"),
    ("gpud", "GPUD"),
];

fn main() -> Result<()> {
    directives();
    let out = std::env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?;
    let out = Path::new(&out);
    std::fs::write(out.join("catalog.rs"), catalog().context(CATALOG)?)
        .context("cannot write catalog.rs")?;
    std::fs::write(out.join("nvlink5.rs"), nvlink5().context(NVLINK5)?)
        .context("cannot write nvlink5.rs")?;
    let mut tables = String::new();
    for (name, constant) in TABLES {
        tables += &profile(name, constant).with_context(|| format!("{PROFILES}/{name}.csv"))?;
    }
    std::fs::write(out.join("profiles.rs"), tables).context("cannot write profiles.rs")
}

fn directives() {
    for path in ["build.rs", CATALOG, NVLINK5, PROFILES] {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// `[Entry { … }, …]`, ascending by code.
fn catalog() -> Result<String> {
    let mut reader = csv::Reader::from_path(CATALOG)?;
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|h| h == name)
            .with_context(|| format!("no column {name}"))
    };
    let (code, name, mnemonic) = (column("xid")?, column("name")?, column("mnemonic")?);
    let (immediate, investigatory) = (column("immediate_action")?, column("investigatory_action")?);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let field = |at: usize| record.get(at).unwrap_or_default().trim();
        let number: u64 = field(code)
            .parse()
            .with_context(|| format!("code {:?}", field(code)))?;
        let name = if field(name).is_empty() {
            field(mnemonic)
        } else {
            field(name)
        };
        let name = name
            .split(" -- ")
            .next()
            .unwrap_or(name)
            .replace(" / ", " ");
        let remedy = remedy(field(immediate)).with_context(|| format!("XID {number}"))?;
        rows.push((number, name, remedy, field(investigatory).to_owned()));
    }
    rows.sort();
    ensure!(
        rows.windows(2)
            .all(|pair| matches!(pair, [a, b] if a.0 < b.0)),
        "a code is listed twice"
    );
    let mut out = String::from("[\n");
    for (code, name, remedy, investigate) in rows {
        writeln!(
            out,
            "Entry {{ code: {code}, name: {name:?}, remedy: Remedy::{remedy}, investigate: {investigate:?} }},"
        )?;
    }
    Ok(out + "]")
}

/// The vendor's word for the immediate action, as a variant of `Remedy`.
fn remedy(word: &str) -> Result<&'static str> {
    Ok(match word {
        "RESTART_APP" => "RestartApp",
        "IGNORE" => "Ignore",
        "RESET_GPU" => "ResetGpu",
        "RESTART_BM" => "RestartBm",
        "RESTART_VM" => "RestartVm",
        "CONTACT_SUPPORT" => "ContactSupport",
        "CHECK_MECHANICALS" => "CheckMechanicals",
        "CHECK_UVM" => "CheckUvm",
        "UPDATE_SWFW" => "UpdateSoftware",
        "WORKFLOW_XID_45" => "FollowRoot",
        "WORKFLOW_XID_48" => "DoubleBit",
        "WORKFLOW_NVLINK_ERR" => "NvLink",
        "WORKFLOW_NVLINK5_ERR" => "NvLink5",
        "XID_154" => "Recovery",
        "" => "Unpublished",
        other => bail!(
            "the immediate action {other:?} is not understood: teach it to build.rs and src/catalog.rs"
        ),
    })
}

/// `[Rule { … }, …]`, in the table's order, a rule for each driver generation and action.
fn nvlink5() -> Result<String> {
    let mut reader = csv::Reader::from_path(NVLINK5)?;
    let mut out = String::from("[\n");
    for (row, record) in reader.records().enumerate() {
        let record = record?;
        let field = |at: usize| record.get(at).unwrap_or_default().trim();
        // Columns: 0 code, 1 unit, 2 and 3 the pattern by generation, 4 error status, 5 action;
        // 6 and 7 the pattern and 8 the action of the second case, 9 what to investigate.
        let mut rule = |patterns: [usize; 2], action: usize| -> Result<()> {
            let status = status(field(4))?;
            let verdict = bucket(field(action))?;
            for (generation, at) in ["BeforeR575", "R575"].into_iter().zip(patterns) {
                let (mask, value) = pattern(field(at))?;
                writeln!(
                    out,
                    "Rule {{ xid: {}, unit: {:?}, generation: Generation::{generation}, mask: {mask:#x}, \
                     value: {value:#x}, status: {status}, bucket: Bucket::{verdict}, investigate: {:?} }},",
                    field(0),
                    field(1),
                    field(9),
                )?;
            }
            Ok(())
        };
        rule([2, 3], 5).with_context(|| format!("row {}", row + 2))?;
        if !field(8).is_empty() {
            rule([6, 7], 8).with_context(|| format!("row {}, second case", row + 2))?;
        }
    }
    Ok(out + "]")
}

fn bucket(word: &str) -> Result<&'static str> {
    Ok(match word {
        "IGNORE" => "Ignore",
        "RESET_GPU" => "ResetGpu",
        "XID_154_EVAL" => "FollowRecovery",
        other => bail!("the resolution bucket {other:?} is not understood"),
    })
}

/// Thirty-two places, bit 31 first: 0 and 1 must match, `-` is the user's.
fn pattern(text: &str) -> Result<(u32, u32)> {
    ensure!(
        text.len() == 32,
        "the pattern {text:?} has {} places, not 32",
        text.len()
    );
    let (mut mask, mut value) = (0u32, 0u32);
    for place in text.chars() {
        let (m, v) = match place {
            '0' => (1, 0),
            '1' => (1, 1),
            '-' => (0, 0),
            other => bail!("{other:?} in the pattern {text:?}"),
        };
        mask = mask << 1 | m;
        value = value << 1 | v;
    }
    Ok((mask, value))
}

/// Absent: any. Else one value, or several with `/` between.
fn status(text: &str) -> Result<String> {
    let numbers = text
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| u32::from_str_radix(part.trim_start_matches("0x"), 16))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("error status {text:?}"))?;
    Ok(format!("&{numbers:?}"))
}

/// `static NAME: Table = …;` from a profile's file: who, from the head lines, then its rows ascending.
fn profile(name: &str, constant: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("{PROFILES}/{name}.csv"))?;
    let head = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(&format!("# {key}: ")))
            .with_context(|| format!("no head line \"# {key}: …\""))
    };
    let (system, version) = (head("system")?, head("version")?);
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    ensure!(
        reader.headers()? == ["xid", "line", "health", "action", "word"].as_slice(),
        "other columns than xid,line,health,action,word"
    );
    let (mut rows, mut other) = (Vec::new(), None);
    for record in reader.records() {
        let record = record?;
        let field = |at: usize| record.get(at).unwrap_or_default();
        let fatal_line = match field(1) {
            "" => false,
            "fatal" => true,
            word => bail!("the line {word:?} is not understood"),
        };
        let health = match field(2) {
            "unhealthy" => "Fatal",
            "degraded" => "Warning",
            "healthy" => "Info",
            word => bail!("the health {word:?} is not understood"),
        };
        let action = action(field(3))?;
        let answer = format!(
            "Answer {{ severity: Severity::{health}, action: {action}, word: {:?} }}",
            field(4)
        );
        if field(0) == "*" {
            ensure!(other.replace(answer).is_none(), "* is listed twice");
            continue;
        }
        let code: u64 = field(0)
            .parse()
            .with_context(|| format!("code {:?}", field(0)))?;
        rows.push(((code, fatal_line), answer));
    }
    rows.sort();
    ensure!(
        rows.windows(2)
            .all(|pair| matches!(pair, [a, b] if a.0 < b.0)),
        "a code is listed twice"
    );
    let other = other.context("no row for *, every code without a row")?;
    let mut out = format!(
        "static {constant}: Table = Table {{ system: {system:?}, version: {version:?}, other: {other}, rows: &[\n"
    );
    for ((code, fatal_line), answer) in rows {
        writeln!(out, "(({code}, {fatal_line}), {answer}),")?;
    }
    Ok(out + "] };\n")
}

/// A word of docs/actions.md as `Option<Action>`; empty: that system says none.
fn action(word: &str) -> Result<&'static str> {
    Ok(match word {
        "" => "None",
        "NONE" => "Some(Action::None)",
        "RESTART_BM" => "Some(Action::RestartBm)",
        "CONTACT_SUPPORT" => "Some(Action::ContactSupport)",
        "REPLACE_VM" => "Some(Action::ReplaceVm)",
        other => bail!("the action {other:?} is not understood: teach it to build.rs"),
    })
}
