//! Config text as JSON, read with errors that name the key.
//!
//! ```
//! use device_policy_sdk::config::Config;
//!
//! let mut config = Config::parse(r#"{"ignored": [43]}"#)?;
//! let ignored = config.codes("ignored")?;
//! config.finish()?;
//! assert_eq!(ignored, [43]);
//! # Ok::<(), String>(())
//! ```

use serde_json::{Map, Value};

/// Entries of one list: more than there are XIDs, so that only a mistake is longer.
pub const ENTRIES_MAX: usize = 1024;

/// A JSON object whose keys are taken one by one; [`finish`](Self::finish) refuses what is left.
#[derive(Clone, Debug)]
pub struct Config {
    path: String,
    map: Map<String, Value>,
}

impl Config {
    /// Empty or blank text is an empty object: the defaults.
    ///
    /// # Errors
    /// The text is no JSON object, with line and column where it is no JSON.
    pub fn parse(text: &str) -> Result<Self, String> {
        let map = if text.trim().is_empty() {
            Map::new()
        } else {
            match serde_json::from_str(text) {
                Ok(Value::Object(map)) => map,
                Ok(other) => {
                    return Err(format!(
                        "config: expected a JSON object, found {}",
                        name(&other)
                    ));
                }
                Err(error) => return Err(format!("config: no JSON: {error}")),
            }
        };
        Ok(Self {
            path: String::new(),
            map,
        })
    }

    /// A list of codes.
    ///
    /// # Errors
    /// The key holds something else, or more than [`ENTRIES_MAX`].
    pub fn codes(&mut self, key: &str) -> Result<Vec<u64>, String> {
        let wrong = |config: &Self, found: &Value| {
            config.expected(key, "a list of numbers like [43, 63]", found)
        };
        match self.map.remove(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() > ENTRIES_MAX => Err(format!(
                "config: {}{key}: {} entries, at most {ENTRIES_MAX} are allowed",
                self.path,
                items.len()
            )),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_u64().ok_or_else(|| wrong(self, item)))
                .collect(),
            Some(other) => Err(wrong(self, &other)),
        }
    }

    /// One of `words`.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn word(
        &mut self,
        key: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, String> {
        let Some(found) = self.map.remove(key) else {
            return Ok(None);
        };
        let word = found
            .as_str()
            .and_then(|text| words.iter().copied().find(|word| *word == text));
        match word {
            Some(word) => Ok(Some(word)),
            None => Err(self.expected(key, &format!("one of {}", words.join(", ")), &found)),
        }
    }

    /// A list of some of `words`.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn words(
        &mut self,
        key: &str,
        words: &[&'static str],
    ) -> Result<Vec<&'static str>, String> {
        let Some(found) = self.map.remove(key) else {
            return Ok(Vec::new());
        };
        let expected = format!("a list of {}", words.join(", "));
        // Longer than that, it has one twice.
        let items = found
            .as_array()
            .filter(|items| items.len() <= words.len())
            .ok_or_else(|| self.expected(key, &expected, &found))?;
        let pick = |item: &Value| {
            words
                .iter()
                .copied()
                .find(|word| item.as_str() == Some(word))
        };
        items
            .iter()
            .map(|item| pick(item).ok_or_else(|| self.expected(key, &expected, item)))
            .collect()
    }

    /// A whole number in a range, `default` where it is absent.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn number(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, String> {
        Ok(self.number_given(key, range)?.unwrap_or(default))
    }

    /// A whole number in a range, which has no default.
    ///
    /// # Errors
    /// The key is missing, or holds something else.
    pub fn number_needed(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, String> {
        let (least, most) = (*range.start(), *range.end());
        self.number_given(key, range)?.ok_or_else(|| {
            format!(
                "config: {}{key}: missing; give a whole number from {least} to {most}",
                self.path
            )
        })
    }

    /// A whole number in a range, where it is given.
    ///
    /// # Errors
    /// The key holds something else.
    pub fn number_given(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, String> {
        let Some(found) = self.map.remove(key) else {
            return Ok(None);
        };
        found
            .as_u64()
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(|| {
                self.expected(
                    key,
                    &format!("a whole number from {} to {}", range.start(), range.end()),
                    &found,
                )
            })
    }

    /// Objects under some of `words`: `{"pcie.replays": {…}}`. Each comes with its own path for errors.
    ///
    /// # Errors
    /// The key holds something else, or a name in it is none of the words.
    pub fn by_word(
        &mut self,
        key: &str,
        words: &[&'static str],
    ) -> Result<Vec<(&'static str, Self)>, String> {
        let entries = match self.map.remove(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(map)) => map,
            Some(other) => {
                let expected = format!("an object whose keys are of {}", words.join(", "));
                return Err(self.expected(key, &expected, &other));
            }
        };
        let mut out = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let path = format!("{}{key}.{name}", self.path);
            let word = words.iter().copied().find(|word| *word == name);
            let word = word.ok_or_else(|| {
                format!(
                    "config: {path}: expected one of {} as its name",
                    words.join(", ")
                )
            })?;
            let Value::Object(map) = value else {
                return Err(format!(
                    "config: {path}: expected an object, found {}",
                    self::name(&value)
                ));
            };
            let path = format!("{path}.");
            out.push((word, Self { path, map }));
        }
        Ok(out)
    }

    /// Objects under codes: `{"43": {…}}`. Each comes with its own path for errors.
    ///
    /// # Errors
    /// The key holds something else, or a name in it is no number.
    pub fn by_code(&mut self, key: &str) -> Result<Vec<(u64, Self)>, String> {
        let entries = match self.map.remove(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(map)) if map.len() <= ENTRIES_MAX => map,
            Some(other) => {
                return Err(self.expected(key, "an object of at most 1024 codes", &other));
            }
        };
        let mut out = Vec::with_capacity(entries.len());
        for (code, value) in entries {
            let path = format!("{}{key}.{code}", self.path);
            let number = code
                .parse()
                .map_err(|_| format!("config: {path}: the key must be a code like \"43\""))?;
            let Value::Object(map) = value else {
                return Err(format!(
                    "config: {path}: expected an object, found {}",
                    name(&value)
                ));
            };
            out.push((
                number,
                Self {
                    path: format!("{path}."),
                    map,
                },
            ));
        }
        Ok(out)
    }

    /// # Errors
    /// A key that nobody took, by name.
    pub fn finish(self) -> Result<(), String> {
        match self.map.keys().next() {
            Some(key) => Err(format!(
                "config: {}{key}: unknown key; remove it or correct its spelling",
                self.path
            )),
            None => Ok(()),
        }
    }

    fn expected(&self, key: &str, expected: &str, found: &Value) -> String {
        format!(
            "config: {}{key}: expected {expected}, found {}",
            self.path,
            name(found)
        )
    }
}

/// A value in an error: scalars as they are, the rest by type.
fn name(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<u64>, u64), String> {
        let mut config = Config::parse(text)?;
        let codes = config.codes("codes")?;
        let number = config.number("number", 1..=9, 5)?;
        for (_, mut inner) in config.by_code("each")? {
            inner.word("level", &["low", "high"])?;
            inner.finish()?;
        }
        config.finish()?;
        Ok((codes, number))
    }

    #[test]
    fn empty_text_means_the_defaults() {
        for text in ["", " \n", "{}"] {
            assert_eq!(read(text), Ok((vec![], 5)));
        }
        assert_eq!(
            read(r#"{"codes":[1,2],"number":9,"each":{"7":{"level":"low"}}}"#),
            Ok((vec![1, 2], 9))
        );
    }

    #[test]
    fn every_error_names_its_key() {
        for (text, part) in [
            ("[]", "expected a JSON object, found a list"),
            ("{", "no JSON"),
            (r#"{"codes":4}"#, "codes: expected a list"),
            (
                r#"{"codes":["x"]}"#,
                "codes: expected a list of numbers like [43, 63], found \"x\"",
            ),
            (
                r#"{"number":0}"#,
                "number: expected a whole number from 1 to 9, found 0",
            ),
            (r#"{"each":{"x":{}}}"#, "each.x: the key must be a code"),
            (r#"{"each":{"7":3}}"#, "each.7: expected an object, found 3"),
            (
                r#"{"each":{"7":{"level":"mid"}}}"#,
                "each.7.level: expected one of low, high, found \"mid\"",
            ),
            (r#"{"each":{"7":{"lvl":1}}}"#, "each.7.lvl: unknown key"),
            (r#"{"code":[]}"#, "code: unknown key"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
