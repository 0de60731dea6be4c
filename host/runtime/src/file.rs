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
    pub(crate) values: Vec<String>,
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
    // `None`: an empty file, or one of comments only.
    let entries: Option<Entries> = serde_saphyr::from_str(text).map_err(|error| {
        let plain = error.without_snippet().to_string();
        plain.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    })?;
    Ok(entries.map(|entries| entries.0).unwrap_or_default())
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
                        let key = &key.value;
                        return Err(A::Error::custom(format!(
                            "`{key}` is an empty list; leave the key out"
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

/// The words of a scalar, a list or a mapping; what they mean is for the table of flags to say.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, a list of values, or a mapping to values")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_str<E>(self, value: &str) -> Result<Values, E> {
                Ok(Values(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut all = Vec::new();
                while let Some(Values(values)) = seq.next_element()? {
                    all.extend(values);
                }
                Ok(Values(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut all = Vec::new();
                while let Some((key, Scalar(value))) = map.next_entry::<String, Scalar>()? {
                    all.push(format!("{key}={value}"));
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
            (Some(word), true) => Ok(Self(word)),
            _ => Err(D::Error::custom("expected one value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, u64, &[&str])]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, line, values)| Entry {
                key: (*key).to_owned(),
                line: *line,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            })
            .collect();
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn scalars_and_lists_are_read_with_their_lines() {
        check("", &[]);
        check("# nothing yet\n", &[]);
        check(
            "health-port: 8081\n\n# twice\nunix-socket:\n  - /a\n  - '/b'\nkmsg-drill: true\nshutdown-timeout: 10s\ngrpc-address: \"\"\n",
            &[
                ("health-port", 1, &["8081"]),
                ("unix-socket", 4, &["/a", "/b"]),
                ("kmsg-drill", 7, &["true"]),
                ("shutdown-timeout", 8, &["10s"]),
                ("grpc-address", 9, &[""]),
            ],
        );
        check(
            "nvml-ignored-xids: [43, 45]\n",
            &[("nvml-ignored-xids", 1, &["43", "45"])],
        );
        check(
            "limits:\n  gpus: 7\n  request-time: 5s\nhealth-port: 1\n",
            &[
                ("limits", 1, &["gpus=7", "request-time=5s"]),
                ("health-port", 4, &["1"]),
            ],
        );
    }

    #[track_caller]
    fn refused(text: &str, words: &[&str]) {
        let why = parse(text).expect_err("refused");
        assert!(
            words.iter().all(|word| why.contains(word)),
            "{why:?} lacks one of {words:?}"
        );
        assert_eq!(why.lines().count(), 1, "{why:?}");
    }

    #[test]
    fn what_is_no_list_of_settings_is_refused_with_its_line() {
        refused(
            "health-port: 1\nhealth-port: 2\n",
            &["health-port", "line 2"],
        );
        refused("a:\n  b: [1, 2]\n", &["line", "one value"]);
        refused("a: {}\n", &["`a`", "empty list"]);
        refused("- a\n- b\n", &["line 1"]);
        refused("just words\n", &["line 1"]);
        refused("a: [1\n", &["line"]);
        refused(
            "health-port: 1\nunix-socket: []\n",
            &["unix-socket", "empty list"],
        );
        refused("health-port:\n", &["line 1"]);
    }

    #[test]
    fn an_endless_file_is_cut_off() {
        let error = read(Path::new("/dev/zero")).expect_err("refused");
        assert!(matches!(error, FileError::TooLarge { .. }), "{error}");
    }
}
