//! Our documents, as the tests hold them to the truth: their blocks, links, headings and commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{self, Command};
use crate::tools::root;

/// One document.
#[derive(Debug)]
pub struct Document {
    /// From the checkout's folder, as in `docs/install.md`.
    pub name: String,
    pub path: PathBuf,
    pub text: String,
}

/// What stands between fences.
#[derive(Debug)]
pub struct Block {
    /// What follows the fence: the language, and what tests are told besides.
    pub info: String,
    /// Without the fence's own indentation.
    pub text: String,
    /// Of the first line within, from 1.
    pub line: usize,
}

/// Folders that hold what is made, and not written.
const MADE: [&str; 4] = ["target", "node_modules", "venv", "vendor"];

/// Every document of the checkout, in the order of their names.
///
/// # Errors
/// A folder or a document can't be read.
pub fn documents() -> Result<Vec<Document>> {
    let root = root()?;
    let mut folders = vec![root.clone()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !name.starts_with('.') && !MADE.contains(&&*name) {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".md") {
                documents.push(Document::read(&root, path)?);
            }
        }
    }
    documents.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(documents.len() > 40, "{} documents only", documents.len());
    Ok(documents)
}

impl Document {
    fn read(root: &Path, path: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root)?.display().to_string();
        Ok(Self { name, path, text })
    }

    /// What stands between fences, in order.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(usize, Block)> = None;
        for (at, line) in self.text.lines().enumerate() {
            let trimmed = line.trim_start();
            open = match (open, trimmed.strip_prefix("```")) {
                (None, None) => None,
                (None, Some(info)) => {
                    let block = Block {
                        info: info.trim().to_owned(),
                        text: String::new(),
                        line: at + 2,
                    };
                    Some((line.len() - trimmed.len(), block))
                }
                (Some((_, block)), Some(_)) => {
                    blocks.push(block);
                    None
                }
                (Some((indent, mut block)), None) => {
                    let indent = indent.min(line.len() - trimmed.len());
                    block.text.push_str(line.get(indent..).unwrap_or_default());
                    block.text.push('\n');
                    Some((indent, block))
                }
            };
        }
        blocks
    }

    /// What stands outside of fences; as many lines as the document has.
    #[must_use]
    pub fn prose(&self) -> String {
        let mut is_block = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            let is_fence = line.trim_start().starts_with("```");
            if !is_block && !is_fence {
                prose.push_str(line);
            }
            is_block ^= is_fence;
            prose.push('\n');
        }
        prose
    }

    /// What stands in single backticks, outside of fences.
    #[must_use]
    pub fn quoted(&self) -> Vec<String> {
        let prose = self.prose();
        let quoted = prose.split('`').skip(1).step_by(2);
        quoted.map(|text| text.replace('\n', " ")).collect()
    }

    /// Where its links lead, as they are written.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        // What is quoted is no link.
        let prose = self.prose();
        let text: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("``");
        let targets = text.split("](").skip(1);
        let targets = targets.filter_map(|rest| rest.split([')', ' ', '\n']).next());
        targets.map(str::to_owned).collect()
    }

    /// What a link may name in it, after the `#`: its headings, as the forge makes anchors of them.
    #[must_use]
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for line in self.prose().lines() {
            let heading = line.trim_start_matches('#');
            let level = line.len() - heading.len();
            let Some(heading) = heading
                .strip_prefix(' ')
                .filter(|_| (1..=6).contains(&level))
            else {
                continue;
            };
            let anchor = anchor(heading);
            let times = seen.entry(anchor.clone()).or_default();
            anchors.insert(match *times {
                0 => anchor,
                times => format!("{anchor}-{times}"),
            });
            *times += 1;
        }
        anchors
    }

    /// The commands of its shell blocks, in order. What an earlier one assigns, a later one has.
    ///
    /// # Errors
    /// It is no shell that we understand: names the document and the block's line.
    pub fn commands(&self) -> Result<Vec<Command>> {
        let mut variables = BTreeMap::new();
        let mut commands = Vec::new();
        for block in self.blocks() {
            let text = match block.info.split(' ').next().unwrap_or_default() {
                "sh" | "bash" | "shell" => block.text.clone(),
                "console" => typed(&block.text),
                _ => continue,
            };
            let found = shell::commands(&text, &mut variables)
                .with_context(|| format!("{}, line {}", self.name, block.line))?;
            commands.extend(found);
        }
        Ok(commands)
    }
}

/// Of a terminal's session what was typed: lines after `$ `, and how they go on.
fn typed(text: &str) -> String {
    let mut typed = String::new();
    let mut goes_on = false;
    for line in text.lines() {
        let line = match line.strip_prefix("$ ") {
            Some(line) => line,
            None if goes_on => line,
            None => continue,
        };
        goes_on = line.ends_with('\\');
        typed.push_str(line);
        typed.push('\n');
    }
    typed
}

fn anchor(heading: &str) -> String {
    let heading = heading.trim().to_lowercase();
    // Of a link its text.
    let mut text = String::new();
    let mut rest = &*heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let known = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    text.chars()
        .filter(known)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document {
            name: "a.md".to_owned(),
            path: PathBuf::from("a.md"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn blocks_lose_their_fences_indentation_and_nothing_else() {
        let page = document("a\n  ```yaml x\n  b:\n    c\n  ```\n```\nd\n```\n");
        let blocks = page.blocks();
        let [first, second] = &*blocks else {
            panic!("{blocks:?}")
        };
        assert_eq!((&*first.info, &*first.text), ("yaml x", "b:\n  c\n"));
        assert_eq!((second.line, &*second.text), (7, "d\n"));
        assert_eq!(page.prose(), "a\n\n\n\n\n\n\n\n");
    }

    #[test]
    fn anchors_are_those_of_the_forge() {
        let page =
            document("# A `b-c`: d, e_f!\n## X\n```\n# no\n```\n## X\n### [y z](q.md) w\n#no\n");
        let expected = ["a-b-c-d-e_f", "x", "x-1", "y-z-w"];
        assert!(page.anchors().iter().eq(&expected), "{:?}", page.anchors());
    }

    #[test]
    fn links_are_not_what_is_quoted() {
        let page = document("[a](b.md#c) `[d](e)`\n![f](g.png \"h\")\n```\n[i](j)\n```\n");
        assert_eq!(page.links(), ["b.md#c", "g.png"]);
    }

    #[test]
    fn of_a_session_only_what_was_typed_is_a_command() {
        let page =
            document("```console\n$ a b \\\n  c\nd e\n```\n```sh\nf\n```\n```yaml\ng\n```\n");
        let commands = page.commands().expect("read");
        let words: Vec<_> = commands.iter().map(|of| of.words.join(" ")).collect();
        assert_eq!(words, ["a b c", "f"]);
    }
}
