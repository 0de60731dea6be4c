//! As much of a shell as our documents use: what is run, with which words. Nothing is run here.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context as _, Result};

/// One simple command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program first; without `sudo`, assignments and redirections.
    pub words: Vec<String>,
}

impl Command {
    /// The program, without its path.
    #[must_use]
    pub fn program(&self) -> &str {
        let program = self.words.first().map_or("", String::as_str);
        program.rsplit('/').next().unwrap_or_default()
    }

    #[must_use]
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// As one would type it.
    #[must_use]
    pub fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// Stands for what a command in `$(…)` prints.
const SUBSTITUTED: &str = "substituted";

type Variables = BTreeMap<String, String>;

/// The commands of a text, those in `$(…)` before the one that they are in. Assignments are kept in `variables`; one that
/// is not known stays as it is written.
///
/// # Errors
/// A quote, a `$(` or a `${` has no end.
pub fn commands(text: &str, variables: &mut Variables) -> Result<Vec<Command>> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        word: None,
        words: Vec::new(),
        drops: false,
        commands: Vec::new(),
        variables,
    };
    reader.read()?;
    Ok(reader.commands)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    word: Option<String>,
    words: Vec<String>,
    /// Whether the next word is the file of a redirection.
    drops: bool,
    commands: Vec<Command>,
    variables: &'a mut Variables,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<()> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => match self.rest.next() {
                    Some('\n') | None => {}
                    Some(c) => self.push(c),
                },
                '\'' => self.single()?,
                '"' => self.double()?,
                '$' => self.expand()?,
                '#' if self.word.is_none() => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '\n' | ';' | '|' | '&' | '(' | ')' => self.end_command(),
                '<' | '>' => self.redirect(c)?,
                c if c.is_whitespace() => self.end_word(),
                c => self.push(c),
            }
        }
        self.end_command();
        Ok(())
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn push_str(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn single(&mut self) -> Result<()> {
        self.push_str("");
        loop {
            match self.rest.next().context("a ' without its end")? {
                '\'' => return Ok(()),
                c => self.push(c),
            }
        }
    }

    fn double(&mut self) -> Result<()> {
        self.push_str("");
        loop {
            match self.rest.next().context("a \" without its end")? {
                '"' => return Ok(()),
                '$' => self.expand()?,
                '\\' => match self.rest.next().context("a \" without its end")? {
                    '\n' => {}
                    c @ ('"' | '\\' | '$' | '`') => self.push(c),
                    c => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                c => self.push(c),
            }
        }
    }

    /// After a `$`.
    fn expand(&mut self) -> Result<()> {
        if self.rest.next_if_eq(&'(').is_some() {
            let mut inner = String::new();
            let mut depth = 1;
            loop {
                let c = self.rest.next().context("a $( without its end")?;
                depth += i32::from(c == '(') - i32::from(c == ')');
                if depth == 0 {
                    break;
                }
                inner.push(c);
            }
            let found = commands(&inner, self.variables)?;
            self.commands.extend(found);
            self.push_str(SUBSTITUTED);
            return Ok(());
        }
        if self.rest.next_if_eq(&'{').is_some() {
            let mut inner = String::new();
            loop {
                match self.rest.next().context("a ${ without its end")? {
                    '}' => break,
                    c => inner.push(c),
                }
            }
            // Of more than a name we know no value.
            let value = self.variables.get(&inner).cloned();
            self.push_str(&value.unwrap_or_else(|| format!("${{{inner}}}")));
            return Ok(());
        }
        let mut name = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
        }
        let value = self.variables.get(&name).cloned();
        self.push_str(&value.unwrap_or_else(|| format!("${name}")));
        Ok(())
    }

    fn redirect(&mut self, c: char) -> Result<()> {
        // A number before it is a descriptor.
        let is_number = |word: &String| word.bytes().all(|b| b.is_ascii_digit());
        if self.word.as_ref().is_some_and(is_number) {
            self.word = None;
        }
        self.end_word();
        let mut again = 0;
        while self.rest.next_if_eq(&c).is_some() {
            again += 1;
        }
        if c == '<' && again == 1 {
            return self.here_document();
        }
        self.rest.next_if_eq(&'&');
        self.drops = true;
        Ok(())
    }

    fn here_document(&mut self) -> Result<()> {
        let mut line = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            line.push(c);
        }
        // What follows its mark on the line belongs to the command.
        let line = line.trim_start();
        let (mark, after) = line.split_once(' ').unwrap_or((line, ""));
        let mark = mark.trim_matches(['\'', '"']);
        let mut rest: String = self.rest.by_ref().collect();
        let end = format!("\n{mark}\n");
        if !rest.ends_with('\n') {
            rest.push('\n');
        }
        let (_, rest) = rest
            .split_once(&end)
            .with_context(|| format!("<<{mark} without its end"))?;
        let (after, rest) = (after.to_owned(), rest.to_owned());
        self.words_of(&after);
        self.end_command();
        let found = commands(&rest, self.variables)?;
        self.commands.extend(found);
        Ok(())
    }

    fn words_of(&mut self, text: &str) {
        self.words
            .extend(text.split_whitespace().map(str::to_owned));
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.drops)
        {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.drops = false;
        let mut words = std::mem::take(&mut self.words);
        let is_export = words.first().is_some_and(|word| word == "export");
        let from = usize::from(is_export);
        let count = words
            .iter()
            .skip(from)
            .take_while(|word| assignment(word).is_some());
        let count = count.count();
        let assigned: Vec<_> = words.drain(..from + count).skip(from).collect();
        if words.is_empty() {
            let assigned = assigned.iter().filter_map(|word| assignment(word));
            let assigned = assigned.map(|(name, value)| (name.to_owned(), value.to_owned()));
            self.variables.extend(assigned.collect::<Vec<_>>());
            return;
        }
        if words.first().is_some_and(|word| word == "sudo") {
            let user = words.get(1).is_some_and(|word| word == "-u");
            words.drain(..if user { words.len().min(3) } else { 1 });
        }
        if !words.is_empty() {
            self.commands.push(Command { words });
        }
    }
}

/// `NAME=value`.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let mut letters = name.bytes();
    let begins = letters
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    (begins && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&[&str]]) {
        let found = commands(text, &mut Variables::new()).expect("read");
        let found: Vec<Vec<&str>> = found
            .iter()
            .map(|command| command.words.iter().map(String::as_str).collect())
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn words_are_those_of_a_shell() {
        check(
            "a 'b c' \"d e\"f \\\n  g # h\n",
            &[&["a", "b c", "d ef", "g"]],
        );
        check("a && b; c | d &", &[&["a"], &["b"], &["c"], &["d"]]);
        check("a 2>/dev/null >b c 2>&1 <d", &[&["a", "c"]]);
        check("A=1 sudo -u x b '' \\\"", &[&["b", "", "\""]]);
        check("sudo a -u b", &[&["a", "-u", "b"]]);
        check(
            "a=1; b=$a-${a}; c \"$b\" $d '$a'",
            &[&["c", "1-1", "$d", "$a"]],
        );
        check("a b#c ${d[1]}", &[&["a", "b#c", "${d[1]}"]]);
    }

    #[test]
    fn commands_in_commands_are_commands() {
        check(
            "a \"$(b c | d)\" e",
            &[&["b", "c"], &["d"], &["a", SUBSTITUTED, "e"]],
        );
        check("a <<'E' b\nc $(\nE\nd", &[&["a", "b"], &["d"]]);
        check("a <<<'b c' d", &[&["a", "d"]]);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        for text in ["a 'b", "a \"b", "a $(b", "a <<E\nb\n", "a ${b"] {
            assert!(commands(text, &mut Variables::new()).is_err(), "{text}");
        }
    }
}
