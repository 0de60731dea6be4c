//! Rust tokens, as far as the checks need them: what is code and what is comment or text.

/// A token of interest. Numbers, lifetimes, characters and comments are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A keyword or name; `r#name` is [`Token::RawWord`].
    Word(&'a str),
    /// `r#name`, without the `r#`: never a keyword.
    RawWord(&'a str),
    /// What stands between the quotes of a string of any kind, escapes left as they are.
    Text(&'a str),
    Punct(char),
}

/// A token and the line (from 1) that it starts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) line: usize,
}

/// The tokens of a source file that compiles. One that doesn't gives tokens all the same, never a panic.
pub(crate) fn tokens(source: &str) -> Vec<Located<'_>> {
    let mut lexer = Lexer {
        rest: source,
        line: 1,
    };
    let mut tokens = Vec::new();
    loop {
        let line = lexer.line;
        match lexer.next() {
            Step::Token(token) => tokens.push(Located { token, line }),
            Step::Dropped => {}
            Step::End => return tokens,
        }
    }
}

enum Step<'a> {
    Token(Token<'a>),
    Dropped,
    End,
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Step<'a> {
        let Some(first) = self.rest.chars().next() else {
            return Step::End;
        };
        if self.rest.starts_with("//") {
            self.take_while(|c| c != '\n');
            return Step::Dropped;
        }
        if self.rest.starts_with("/*") {
            self.block_comment();
            return Step::Dropped;
        }
        match first {
            '"' => Step::Token(Token::Text(self.quoted())),
            '\'' => {
                self.char_or_lifetime();
                Step::Dropped
            }
            c if c.is_ascii_digit() => {
                self.take_while(is_in_word);
                Step::Dropped
            }
            c if is_in_word(c) => Step::Token(self.word()),
            c if c.is_whitespace() => {
                self.take(c.len_utf8());
                Step::Dropped
            }
            c => {
                self.take(c.len_utf8());
                Step::Token(Token::Punct(c))
            }
        }
    }

    /// A name, or what its first letters are the prefix of: `r#"…"#`, `b"…"`, `c"…"`, `r#name`.
    fn word(&mut self) -> Token<'a> {
        let word = self.take_while(is_in_word);
        if matches!(word, "r" | "br" | "cr") {
            let after = self.rest.trim_start_matches('#');
            let hashes = self.rest.len() - after.len();
            if after.starts_with('"') {
                return Token::Text(self.raw_quoted(hashes));
            }
            if word == "r" && hashes == 1 && after.starts_with(is_in_word) {
                self.take(1);
                return Token::RawWord(self.take_while(is_in_word));
            }
        }
        if matches!(word, "b" | "c") && self.rest.starts_with('"') {
            return Token::Text(self.quoted());
        }
        Token::Word(word)
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take_char();
            }
        }
    }

    fn quoted(&mut self) -> &'a str {
        self.take(1);
        let mut escaped = false;
        let text = self.take_while(|c| {
            let end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            !end
        });
        self.take(1);
        text
    }

    fn raw_quoted(&mut self, hashes: usize) -> &'a str {
        self.take(hashes + 1);
        let end = format!("\"{}", "#".repeat(hashes));
        let length = self.rest.find(&end).unwrap_or(self.rest.len());
        let text = self.take(length);
        self.take(end.len());
        text
    }

    fn char_or_lifetime(&mut self) {
        self.take(1);
        let mut chars = self.rest.chars();
        match (chars.next(), chars.next()) {
            (Some('\\'), Some(escaped)) => {
                self.take(1 + escaped.len_utf8());
                self.take_while(|c| c != '\'');
                self.take(1);
            }
            (Some(c), Some('\'')) => {
                self.take(c.len_utf8() + 1);
            }
            _ => {
                self.take_while(is_in_word);
            }
        }
    }

    fn take_char(&mut self) {
        let length = self.rest.chars().next().map_or(0, char::len_utf8);
        self.take(length);
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let length = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        self.take(length)
    }

    /// The next `length` bytes, or what is left.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .unwrap_or((self.rest, ""));
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        taken
    }
}

fn is_in_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words, raw words (`r#x`), texts (`"x"`) and punctuation, separated by spaces.
    #[track_caller]
    fn check(source: &str, expected: &str) {
        let found: Vec<String> = tokens(source)
            .into_iter()
            .map(|located| match located.token {
                Token::Word(word) => word.to_owned(),
                Token::RawWord(word) => format!("r#{word}"),
                Token::Text(text) => format!("{text:?}"),
                Token::Punct(c) => c.to_string(),
            })
            .collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn comments_are_no_code() {
        check("mod a; // mod b;\nmod c;", "mod a ; mod c ;");
        check("/* mod a; /* nested */ mod b; */ mod c;", "mod c ;");
        check("//! mod a;\n/// mod b;\nmod c;", "mod c ;");
        check("a /* never closed", "a");
    }

    #[test]
    fn strings_are_text() {
        check(
            r#"f("mod a; // \" \\");x"#,
            r#"f ( "mod a; // \\\" \\\\" ) ; x"#,
        );
        check(
            r###"r#"a " b"# br"x\" c"y" b"z" r##"1"#2"##"###,
            r###""a \" b" "x\\" "y" "z" "1\"#2""###,
        );
        check("\"never closed", "\"never closed\"");
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        check("'\"' mod", "mod");
        check("'\\'' mod", "mod");
        check("'\\u{1F600}' mod", "mod");
        check("b'\"' 'é' mod", "b mod");
        check("<'a> &'static str", "< > & str");
        check("f::<'_>('{')", "f : : < > ( )");
    }

    #[test]
    fn raw_names_are_no_keywords() {
        check("mod r#unsafe;", "mod r#unsafe ;");
        check("r b c br", "r b c br");
        check("1_000u32..n 0xmod", ". . n");
    }

    #[test]
    fn lines_count_through_comments_and_strings() {
        let source = "/* a\n\n*/ \"x\ny\" z\n w";
        let lines: Vec<usize> = tokens(source).iter().map(|located| located.line).collect();
        assert_eq!(lines, [3, 4, 5]);
    }
}
