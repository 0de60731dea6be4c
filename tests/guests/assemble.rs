//! For `tests/build.rs`: makes a component of each hostile guest's folder, and the enum that names them
//! all. Whoever matches on it without a wildcard, as `tests/tests/hostile/cases.rs` does, does not compile
//! while a folder has no test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, embed_component_metadata};

#[path = "name.rs"]
mod name;

use name::named;

const FRAME: &str = include_str!("frame.wat");

/// Where in its memory a guest of the frame has its answers.
const ANSWERS_AT: usize = 4096;

/// What a misdeed may export, what it is in the module, and what stands in its place.
const EXPORTS: [(&str, &str, &str); 5] = [
    (
        "configure",
        "(export \"gpu:device-policy/policy@0.1.0#configure\")",
        "(param i32 i32) (result i32) (global.get $info))",
    ),
    (
        "configured",
        "(export \"cabi_post_gpu:device-policy/policy@0.1.0#configure\")",
        "(param i32) (call $forget))",
    ),
    // The frame exports it.
    (
        "evaluate",
        "$evaluate",
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (global.get $nothing))",
    ),
    (
        "evaluated",
        "(export \"cabi_post_gpu:device-policy/policy@0.1.0#evaluate\")",
        "(param i32) (call $forget))",
    ),
    (
        "realloc",
        "(export \"cabi_realloc\")",
        "(param i32 i32 i32 i32) (result i32) (call $bump (local.get 3)))",
    ),
];

/// What a folder of `tests/guests/` is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// `guest.rs`: on the SDK, in the crate that all of these are.
    Rust,
    /// `wasi.rs`: the same, for the `wasm32-wasip2` target. Built by the test, as not everyone has that.
    Wasi,
    /// `policy.wat`: what is wrong with it, put into `frame.wat`.
    Policy,
    /// `component.wat`: all of a component.
    Component,
    /// `place.rs`: puts what is no component, or no file, where one should be.
    Place,
}

const SOURCES: [(&str, Source); 5] = [
    ("guest.rs", Source::Rust),
    ("wasi.rs", Source::Wasi),
    ("policy.wat", Source::Policy),
    ("component.wat", Source::Component),
    ("place.rs", Source::Place),
];

/// Writes the components into `out` and returns the Rust source that includes them. `others` are the
/// folders that are no hostile guests; any that is neither fails the build.
pub(crate) fn hostile(
    guests: &Path,
    out: &Path,
    kit: &Path,
    others: impl Fn(&str) -> bool,
) -> Result<String> {
    let kit = fs::read(kit).context("cannot read the component of the Rust guests")?;
    let mut found = BTreeMap::new();
    for (name, folder) in folders(guests)? {
        if others(&name) {
            continue;
        }
        let source = source(&folder)?;
        let made = match source {
            Source::Rust => Some(named(&kit, &name)?),
            Source::Policy => Some(framed(&kit, &name, &text(&folder, "policy.wat")?)?),
            Source::Component => Some(wat::parse_str(text(&folder, "component.wat")?)?),
            Source::Wasi | Source::Place => None,
        };
        if let Some(bytes) = made {
            let file = out.join(format!("hostile-{name}.wasm"));
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
        }
        found.insert(name, (folder, source));
    }
    generated(out, &found)
}

fn folders(guests: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut folders = BTreeMap::new();
    for entry in fs::read_dir(guests)? {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str());
            folders.insert(
                name.context("a folder's name is no UTF-8")?.to_owned(),
                path,
            );
        }
    }
    Ok(folders)
}

fn source(folder: &Path) -> Result<Source> {
    let mut sources = SOURCES
        .iter()
        .filter(|(file, _)| folder.join(file).is_file());
    match (sources.next(), sources.next()) {
        (Some((_, source)), None) => Ok(*source),
        _ => bail!(
            "{} is to have one of guest.rs, wasi.rs, policy.wat, component.wat and place.rs (tests/guests/assemble.rs says what they are)",
            folder.display()
        ),
    }
}

/// The text of a file, `;;@ repeat N TEXT` lines repeated.
fn text(folder: &Path, file: &str) -> Result<String> {
    let mut text = String::new();
    for line in fs::read_to_string(folder.join(file))?.lines() {
        match line.trim_start().strip_prefix(";;@ repeat ") {
            Some(rest) => {
                let (times, repeated) = rest.split_once(' ').context("repeat N TEXT")?;
                text += &format!("{repeated}\n").repeat(times.parse()?);
            }
            None => writeln!(text, "{line}")?,
        }
    }
    Ok(text)
}

/// A misdeed in the frame, as a component. The world is that of the Rust guests, which use all of it.
fn framed(kit: &[u8], name: &str, misdeed: &str) -> Result<Vec<u8>> {
    let mut misdeed = misdeed.to_owned();
    for (name, is, instead) in EXPORTS {
        let export = format!("(export \"{name}\")");
        if misdeed.contains(&export) {
            misdeed = misdeed.replace(&export, is);
        } else {
            write!(misdeed, "\n(func {is} {instead}")?;
        }
    }
    let mut answers = Answers::default();
    let (info, nothing) = (answers.info(name), answers.put(&[0; 28]));
    let text = FRAME
        .replace("@info", &info.to_string())
        .replace("@nothing", &nothing.to_string())
        .replace("@data", &answers.escaped())
        .replace("@misdeed", &misdeed);
    let mut module =
        wat::parse_str(text).with_context(|| format!("tests/guests/{name}/policy.wat"))?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(kit)? else {
        bail!("the Rust guests are no component");
    };
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    ComponentEncoder::default()
        .module(&module)?
        .encode()
        .with_context(|| format!("cannot make a component of tests/guests/{name}/policy.wat"))
}

/// Answers as the canonical ABI lays them out.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
}

impl Answers {
    fn put(&mut self, bytes: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = ANSWERS_AT + self.bytes.len();
        self.bytes.extend(bytes);
        at
    }

    /// Pointer and length.
    fn list(&mut self, bytes: &[u8], items: u32) -> Vec<u8> {
        let at = u32::try_from(self.put(bytes)).unwrap_or(0);
        [at.to_le_bytes(), items.to_le_bytes()].concat()
    }

    fn text(&mut self, text: &str) -> Vec<u8> {
        self.list(text.as_bytes(), u32::try_from(text.len()).unwrap_or(0))
    }

    /// `ok(info)`: owns one type named after the guest, with the reason `Hostile`, and wants each XID.
    fn info(&mut self, name: &str) -> usize {
        let nothing = [0_u8; 8];
        let condition: String = name.split('-').map(capitalised).collect();
        let reason = self.text("Hostile");
        let condition = self.text(&condition);
        let reasons = self.list(&reason, 1);
        let owns = self.list(&[&condition[..], &[1, 0, 0, 0], &reasons].concat(), 1);
        let kind = self.text("xid");
        let subscriptions = self.list(&[&kind[..], &nothing].concat(), 1);
        let (name, version, schema) = (self.text(name), self.text("1.0.0"), [0; 4]);
        self.put(
            &[
                &[0; 4],
                &name[..],
                &version,
                &schema,
                &subscriptions,
                &owns,
                &nothing,
                &nothing,
            ]
            .concat(),
        )
    }

    fn escaped(&self) -> String {
        self.bytes
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect()
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

/// The enum of all folders, and how each gets into a policy directory.
fn generated(out: &Path, found: &BTreeMap<String, (PathBuf, Source)>) -> Result<String> {
    let (mut modules, mut variants, mut all) = (String::new(), String::new(), String::new());
    let (mut names, mut places, mut wasi) = (String::new(), String::new(), String::new());
    for (name, (folder, source)) in found {
        let variant: String = name.split('-').map(capitalised).collect();
        writeln!(variants, "/// `tests/guests/{name}/`.\n{variant},")?;
        writeln!(all, "Self::{variant},")?;
        writeln!(names, "Self::{variant} => {name:?},")?;
        match source {
            Source::Place => {
                let (module, file) = (name.replace('-', "_"), folder.join("place.rs"));
                writeln!(modules, "#[path = {file:?}]\nmod {module};")?;
                writeln!(places, "Self::{variant} => {module}::place(at),")?;
            }
            Source::Wasi => {
                writeln!(wasi, "| Self::{variant}")?;
                writeln!(places, "Self::{variant} => place_wasi(self.name(), at),")?;
            }
            Source::Rust | Source::Policy | Source::Component => {
                let file = out.join(format!("hostile-{name}.wasm"));
                writeln!(
                    places,
                    "Self::{variant} => Ok(std::fs::write(at, include_bytes!({file:?}))?),"
                )?;
            }
        }
    }
    Ok(format!(
        "{modules}\n/// The kit: one for each folder.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub enum Hostile {{\n{variants}}}\n\n\
         impl Hostile {{\n/// All, by name.\npub const ALL: &[Self] = &[\n{all}];\n\n\
         /// Its folder's name.\n#[expect(clippy::too_many_lines, reason = \"an arm a folder\")]\npub fn name(self) -> &'static str {{\nmatch self {{\n{names}}}\n}}\n\n\
         /// Whether it is built for WASI: [`provide_wasi`] comes before it can be placed.\n\
         pub fn is_wasi(self) -> bool {{\nmatches!(self, {wasi})\n}}\n\n\
         /// Puts it where a policy's file should be.\n///\n/// # Errors\n/// It can't be written there.\n\
         #[expect(clippy::too_many_lines, reason = \"an arm a folder\")]\npub fn place(self, at: &std::path::Path) -> anyhow::Result<()> {{\nmatch self {{\n{places}}}\n}}\n}}\n"
    ))
}
