//! The configuration file: a YAML mapping from the names of flags to values.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A full file with a comment at each setting has some 5 KiB. A wrong path (`/dev/zero`) ends here.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// One key with its value: a scalar, a list of scalars, or a mapping, which is a list of `key=value`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// From 1.
    pub(crate) line: u64,
    /// At least one.
    pub(crate) values: Vec<Word>,
}

/// One value of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// From 1; `None`: that of the key.
    pub(crate) line: Option<u64>,
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read configuration file {path:?}: {why}; check --config")]
    Read { path: PathBuf, why: io::Error },
    #[error("configuration file {path:?} is larger than {FILE_BYTES_MAX} bytes; check --config")]
    TooLarge { path: PathBuf },
    #[error("configuration file {path:?}: {why}")]
    Parse { path: PathBuf, why: String },
}

/// Reads the entries in the order of the file.
///
/// # Errors
/// [`FileError`]; of what is no YAML, or not flat, or has a key twice, it names the line.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, FileError> {
    let failed = |why| FileError::Read {
        path: path.to_owned(),
        why,
    };
    let mut text = String::new();
    let opened = std::fs::File::open(path).map_err(failed)?;
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    parse(&text).map_err(|why| FileError::Parse {
        path: path.to_owned(),
        why,
    })
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    // A word means what it means to a flag: `off` is one of `insecure-tcp`, and no truth value.
    let options = serde_saphyr::options! { strict_booleans: true };
    // `None`: an empty file, or one of comments only.
    let entries: Option<Entries> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| why(&error))?;
    Ok(entries.map(|entries| entries.0).unwrap_or_default())
}

/// In the words of whoever wrote the file; the library's advice is for programmers.
fn why(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    if let serde_saphyr::Error::DuplicateMappingKey { key, location } = error {
        let (key, line) = (key.as_deref().unwrap_or("a key"), location.line());
        return format!("`{key}` is there twice, again in line {line}; leave one of them out");
    }
    if let serde_saphyr::Error::MultipleDocuments { location, .. } = error {
        let line = location.line();
        return format!("a second document begins in line {line}; put all settings in one");
    }
    let plain = error.to_string();
    plain.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mapping;

        impl<'de> Visitor<'de> for Mapping {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings, as in `health-port: 8081`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, Values(values))) =
                    map.next_entry::<Spanned<String>, Values>()?
                {
                    if values.is_empty() {
                        let (line, key) = (key.referenced.line(), &key.value);
                        return Err(A::Error::custom(format!(
                            "`{key}` in line {line} has no value; give one, or leave the key out"
                        )));
                    }
                    entries.push(Entry {
                        line: key.referenced.line(),
                        key: key.value,
                        values,
                    });
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Mapping)
    }
}

/// The words of a scalar, a list or a mapping; what they mean is for the table of flags to say. None: there is no value.
struct Values(Vec<Word>);

impl Values {
    fn of(text: impl ToString) -> Self {
        let text = text.to_string();
        Self(vec![Word { text, line: None }])
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, a list of values, or a mapping to values")
            }

            fn visit_unit<E>(self) -> Result<Values, E> {
                Ok(Values(Vec::new()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Values, E> {
                Ok(Values::of(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Values, E> {
                Ok(Values::of(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Values, E> {
                Ok(Values::of(value))
            }

            /// Read as a number, `8084.0` is no more told from 8084.
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Values, E> {
                Err(E::custom(
                    "a number with a point or an exponent, and no setting is one; put it in quotes if it is a word",
                ))
            }

            fn visit_str<E>(self, value: &str) -> Result<Values, E> {
                Ok(Values::of(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = seq.next_element::<Spanned<Values>>()? {
                    let (line, Values(words)) = (entry.referenced.line(), entry.value);
                    if words.is_empty() {
                        return Err(A::Error::custom(format!(
                            "the entry of a list in line {line} has no value"
                        )));
                    }
                    all.extend(words.into_iter().map(|word| Word {
                        line: word.line.or(Some(line)),
                        ..word
                    }));
                }
                Ok(Values(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut all = Vec::new();
                while let Some((key, Scalar(value))) =
                    map.next_entry::<Spanned<String>, Scalar>()?
                {
                    all.push(Word {
                        text: format!("{}={value}", key.value),
                        line: Some(key.referenced.line()),
                    });
                }
                Ok(Values(all))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// The word of a scalar.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Values(mut words) = Values::deserialize(deserializer)?;
        match (words.pop(), words.is_empty()) {
            (Some(word), true) => Ok(Self(word.text)),
            _ => Err(D::Error::custom("expected one value")),
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
