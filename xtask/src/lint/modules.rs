//! Which files a source file leads to: `mod x;`, `#[path]`, `include!`.

use std::path::{Path, PathBuf};

use crate::lint::lexer::{
    self, Token,
    Token::{Punct, RawWord, Text, Word},
};

/// A file, and how it was reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// The folder beside it that its modules are in: its own name, unless it is a target's root, a
    /// `mod.rs`, or reached by `#[path]` or `include!`.
    pub(crate) stem: Option<String>,
}

impl Source {
    /// A file whose modules are beside it.
    pub(crate) fn root(path: PathBuf) -> Self {
        Self { path, stem: None }
    }
}

/// The files that `text`, the text of `source`, may lead to; those that are not there included.
pub(crate) fn references(source: &Source, text: &str) -> Vec<Source> {
    Walk::new(source).references(text)
}

/// Where `mod x;` looks: `dir/stem/x.rs` or `dir/stem/x/mod.rs`; `#[path]` looks in `dir`.
/// The same bookkeeping as rustc's, whose words are `dir_path` and `relative`.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    /// `Some` in a file that is not a root, a `mod.rs` or reached by `#[path]`, outside inline modules.
    stem: Option<String>,
}

impl Place {
    fn base(&self) -> PathBuf {
        self.stem
            .as_ref()
            .map_or_else(|| self.dir.clone(), |stem| self.dir.join(stem))
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// One pass over the tokens of a file.
struct Walk {
    file_dir: PathBuf,
    /// The place within the inline modules that are open.
    place: Place,
    /// One per open brace: the place to return to where it closes an inline module.
    braces: Vec<Option<Place>>,
    /// `#[path]`s of the item that comes next.
    paths: Paths,
    found: Vec<Source>,
}

#[derive(Default)]
struct Paths {
    always: Option<String>,
    /// From `cfg_attr`: with and without are both possible.
    sometimes: Vec<String>,
}

impl Walk {
    fn new(source: &Source) -> Self {
        Self {
            file_dir: parent(&source.path),
            place: Place {
                dir: parent(&source.path),
                stem: source.stem.clone(),
            },
            braces: Vec::new(),
            paths: Paths::default(),
            found: Vec::new(),
        }
    }

    fn references(mut self, source: &str) -> Vec<Source> {
        let tokens: Vec<Token<'_>> = lexer::tokens(source)
            .into_iter()
            .map(|located| located.token)
            .collect();
        let mut rest = tokens.as_slice();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match (first, after) {
                (Punct('#'), [Punct('['), attribute @ ..]) => {
                    rest = self.attribute(attribute);
                }
                (Word("mod"), [Word(name) | RawWord(name), next, after @ ..]) => match next {
                    Punct(';') => {
                        self.out_of_line(name);
                        rest = after;
                    }
                    Punct('{') => {
                        self.enter_inline(name);
                        rest = after;
                    }
                    Punct(_) | Word(_) | RawWord(_) | Text(_) => {}
                },
                (
                    Word("include" | "include_str" | "include_bytes"),
                    [Punct('!'), Punct(_), Text(path), ..],
                ) => self.found.push(Source::root(self.file_dir.join(path))),
                (Punct(c), _) => self.item_boundary(*c),
                _ => {}
            }
        }
        self.found
    }

    /// A brace or semicolon: attributes seen so far belonged to what it opens or ends.
    fn item_boundary(&mut self, c: char) {
        match c {
            '{' => self.braces.push(None),
            '}' => {
                if let Some(Some(outer)) = self.braces.pop() {
                    self.place = outer;
                }
            }
            ';' => {}
            _ => return,
        }
        self.paths = Paths::default();
    }

    /// Reads an attribute up to its `]`, and returns what comes after.
    fn attribute<'t, 's>(&mut self, tokens: &'t [Token<'s>]) -> &'t [Token<'s>] {
        let mut depth = 1_usize;
        let mut end = 0;
        for token in tokens {
            end += 1;
            match token {
                Punct('[') => depth += 1,
                Punct(']') => depth -= 1,
                Punct(_) | Word(_) | RawWord(_) | Text(_) => {}
            }
            if depth == 0 {
                break;
            }
        }
        let (attribute, rest) = tokens.split_at_checked(end).unwrap_or((tokens, &[]));
        match attribute {
            [Word("path"), _, Text(path), ..] => {
                self.paths.always = Some((*path).to_owned());
            }
            [Word("cfg_attr"), inner @ ..] => {
                self.paths
                    .sometimes
                    .extend(inner.windows(3).filter_map(conditional_path));
            }
            _ => {}
        }
        rest
    }

    fn out_of_line(&mut self, name: &str) {
        let paths = std::mem::take(&mut self.paths);
        for path in paths.always.iter().chain(&paths.sometimes) {
            self.found.push(Source::root(self.place.dir.join(path)));
        }
        if paths.always.is_none() {
            let base = self.place.base();
            self.found
                .push(Source::root(base.join(name).join("mod.rs")));
            self.found.push(Source {
                path: base.join(format!("{name}.rs")),
                stem: Some(name.to_owned()),
            });
        }
    }

    fn enter_inline(&mut self, name: &str) {
        let paths = std::mem::take(&mut self.paths);
        let dir = match paths.always {
            Some(path) => self.place.dir.join(path),
            None => self.place.base().join(name),
        };
        let outer = std::mem::replace(&mut self.place, Place { dir, stem: None });
        self.braces.push(Some(outer));
    }
}

/// `path = "…"` within a `cfg_attr`.
fn conditional_path(window: &[Token<'_>]) -> Option<String> {
    match window {
        [Word("path"), Punct('='), Text(path)] => Some((*path).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that `text` leads to; `stem` as in [`Source`]. The text is that of `d/f.rs`.
    #[track_caller]
    fn check(stem: Option<&str>, text: &str, expected: &[&str]) {
        let source = Source {
            path: PathBuf::from("d/f.rs"),
            stem: stem.map(str::to_owned),
        };
        let mut found: Vec<String> = references(&source, text)
            .iter()
            .map(|found| found.path.display().to_string())
            .collect();
        found.sort();
        let mut expected: Vec<String> = expected.iter().map(|path| (*path).to_owned()).collect();
        expected.sort();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn modules_are_beside_a_root_and_below_others() {
        check(None, "mod a;", &["d/a.rs", "d/a/mod.rs"]);
        check(
            Some("f"),
            "pub(crate) mod a;",
            &["d/f/a.rs", "d/f/a/mod.rs"],
        );
        check(None, "mod r#try;", &["d/try.rs", "d/try/mod.rs"]);
        check(None, "macro_rules! m { ($n:ident) => { mod $n; } }", &[]);
    }

    #[test]
    fn inline_modules_are_folders_while_open() {
        check(
            None,
            "mod a { fn f() {} mod b; } mod c {}",
            &["d/a/b.rs", "d/a/b/mod.rs"],
        );
        check(
            Some("f"),
            "mod a { mod b; }",
            &["d/f/a/b.rs", "d/f/a/b/mod.rs"],
        );
        check(
            None,
            "mod a { mod b { } } mod c;",
            &["d/c.rs", "d/c/mod.rs"],
        );
    }

    #[test]
    fn path_attributes_as_the_reference_has_them() {
        check(None, "#[path = \"x.rs\"] mod a;", &["d/x.rs"]);
        check(
            Some("f"),
            "#[cfg(test)] #[path = \"../x.rs\"] pub mod a;",
            &["d/../x.rs"],
        );
        check(None, "mod i { #[path = \"x.rs\"] mod a; }", &["d/i/x.rs"]);
        check(
            Some("f"),
            "mod i { #[path = \"x.rs\"] mod a; }",
            &["d/f/i/x.rs"],
        );
        check(
            None,
            "#[path = \"t\"] mod i { #[path = \"x.rs\"] mod a; }",
            &["d/t/x.rs"],
        );
        check(
            None,
            "#[cfg_attr(unix, path = \"u.rs\")] mod a;",
            &["d/u.rs", "d/a.rs", "d/a/mod.rs"],
        );
        // It belongs to the item it stands on.
        check(
            None,
            "#[path = \"x.rs\"] mod a; mod b;",
            &["d/x.rs", "d/b.rs", "d/b/mod.rs"],
        );
        check(
            None,
            "#[a(path = \"x.rs\", b[\"]\"])] struct S { s: u8 } mod b;",
            &["d/b.rs", "d/b/mod.rs"],
        );
    }

    #[test]
    fn includes_are_beside_the_file() {
        check(Some("f"), "include!(\"x.rs\");", &["d/x.rs"]);
        check(
            None,
            "mod i { const X: &str = include_str!(\"x.rs\"); }",
            &["d/x.rs"],
        );
        check(
            None,
            "include!(concat!(env!(\"OUT_DIR\"), \"/x.rs\"));",
            &[],
        );
    }
}
