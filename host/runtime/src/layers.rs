//! Flags over environment over file over defaults.
//!
//! ```text
//!  file entries ────────┐ those that no variable and no flag sets
//!  environment entries ─┼ those that no flag sets ──▶ one command line ──▶ clap ──▶ Args
//!  flags ───────────────┘ all
//! ```
//!
//! An entry of the environment or the file is turned into the flags it stands for and parsed by the
//! table of flags itself, so that a value means the same and is refused for the same reason wherever
//! it comes from. Each entry is first parsed alone: a refusal then names the variable or the key and
//! line, also where a flag overrides it. (clap's own reading of the environment would name the flag,
//! and tests would have to change the process's environment.)

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::args::Args;
use crate::file::{self, FileError};
use crate::set_by::Sources;

/// Environment variables are the flag's name in capitals after this.
const ENVIRONMENT_PREFIX: &str = "DEVICE_API_";

/// Settings that an empty variable sets (to nothing). For the others it counts as not set, since
/// that is what templates render for a value that nobody chose.
const EMPTY_MEANS_NONE: [&str; 3] = ["grpc-address", "unix-socket", "nvml-ignored-xids"];

/// What the daemon is to do with its settings, and none of them.
const CHECK: &str = "check-config";

/// `-v` more often than this changes nothing.
const VERBOSE_MAX: u8 = 2;

/// Where a value that is no flag comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Environment {
        variable: String,
    },
    File {
        key: String,
        path: PathBuf,
        line: u64,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment { variable } => f.write_str(variable),
            Self::File { key, path, line } => write!(f, "{key} ({}, line {line})", path.display()),
        }
    }
}

/// One setting of the environment or the file, as the flags it stands for.
#[derive(Debug)]
struct Entry {
    flag: String,
    argv: Vec<OsString>,
    origin: Origin,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// `--help` or `--version`: not an error, but the end.
    #[error("{0}")]
    Shown(clap::Error),
    #[error("{0}; see --help")]
    Usage(String),
    #[error("invalid value '{value}' for '{origin}': expected a number from 0 to {VERBOSE_MAX}")]
    Verbosity { value: String, origin: String },
    #[error("the value of '{origin}' is not UTF-8; see --help for what it may be")]
    NotText { origin: String },
    #[error("unknown key '{key}' in {}, line {line}{}; --help lists the settings", path.display(), did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        key: String,
        path: PathBuf,
        line: u64,
        suggestion: Option<String>,
    },
    #[error(transparent)]
    File(#[from] FileError),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// The settings in force, and what to log of them.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) args: Args,
    /// Every setting with its value, defaults included, by the file's keys: the effective
    /// configuration. No setting is a secret.
    pub(crate) effective: serde_json::Map<String, serde_json::Value>,
    /// The settings that are no default, and where each comes from.
    pub(crate) origins: Vec<String>,
    pub(crate) sources: Sources,
}

/// The table of flags, with the variable named in each one's help.
fn command() -> Command {
    Args::command().mut_args(|arg| {
        let flag = arg.get_long().filter(|flag| *flag != CHECK);
        let Some(flag) = flag.map(str::to_owned) else {
            return arg;
        };
        let variable = variable_of(&flag);
        let mention = |text: String| format!("{text} [env: {variable}]");
        let help = arg.get_help().map(ToString::to_string).map(mention);
        let long = arg.get_long_help().map(ToString::to_string).map(mention);
        let arg = help.into_iter().fold(arg, Arg::help);
        long.into_iter().fold(arg, Arg::long_help)
    })
}

fn variable_of(flag: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        flag.replace('-', "_").to_ascii_uppercase()
    )
}

/// Resolves the settings. `argv` begins with the program's name; `environment` looks up a variable.
///
/// # Errors
/// [`LayerError`]: the first thing that is wrong, in the order flags, environment, file.
pub(crate) fn resolve(
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Resolved, LayerError> {
    let command = command();
    let flags = command
        .clone()
        .try_get_matches_from(argv)
        .map_err(from_clap)?;
    let mut entries = environment_entries(&command, environment)?;
    if let Some(path) = config_path(&flags, &entries) {
        let overridden: BTreeSet<String> = entries.iter().map(|entry| entry.flag.clone()).collect();
        let from_file = file_entries(&command, &path)?;
        entries.extend(
            from_file
                .into_iter()
                .filter(|entry| !overridden.contains(&entry.flag)),
        );
    }
    entries.retain(|entry| !given(&flags, &entry.flag));

    // Lower layers first: no setting is in two of them, and what follows a `--` among the flags stays there.
    let program = argv
        .first()
        .cloned()
        .unwrap_or_else(|| command.get_name().into());
    let lower = entries.iter().flat_map(|entry| entry.argv.iter().cloned());
    let all = std::iter::once(program)
        .chain(lower)
        .chain(argv.iter().skip(1).cloned());
    let matches = command
        .clone()
        .try_get_matches_from(all)
        .map_err(from_clap)?;
    let args = Args::from_arg_matches(&matches).map_err(from_clap)?;

    let effective = settings(&command)
        .filter_map(|arg| Some((flag_of(arg)?.to_owned(), effective_value(&matches, arg)?)))
        .collect();
    let from_flags = settings(&command)
        .filter_map(flag_of)
        .filter(|flag| given(&flags, flag))
        .map(|flag| format!("--{flag}"));
    let origins = from_flags
        .chain(entries.iter().map(|entry| entry.origin.to_string()))
        .collect();
    let sources = entries.into_iter();
    let sources = sources.map(|entry| (entry.flag, entry.origin.to_string()));
    Ok(Resolved {
        args,
        effective,
        origins,
        sources: Sources::new(sources),
    })
}

/// All but what says what to do with them.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| flag_of(arg) != Some(CHECK))
}

fn flag_of(arg: &Arg) -> Option<&str> {
    arg.get_long()
}

/// The keys that a setting has in the file: its flag, and what else it is called.
fn names(arg: &Arg) -> impl Iterator<Item = &str> {
    let also = arg.get_all_aliases().unwrap_or_default();
    flag_of(arg).into_iter().chain(also)
}

/// clap's id of a setting is the field's name in [`Args`].
fn id_of(flag: &str) -> String {
    flag.replace('-', "_")
}

fn given(flags: &ArgMatches, flag: &str) -> bool {
    flags.value_source(&id_of(flag)) == Some(ValueSource::CommandLine)
}

fn config_path(flags: &ArgMatches, entries: &[Entry]) -> Option<PathBuf> {
    let from_flag = flags.get_one::<PathBuf>("config").cloned();
    let from_environment = || {
        let entry = entries.iter().find(|entry| entry.flag == "config")?;
        let value = entry.argv.first()?.to_str()?.strip_prefix("--config=")?;
        Some(PathBuf::from(value))
    };
    from_flag.or_else(from_environment)
}

fn environment_entries(
    command: &Command,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<Entry>, LayerError> {
    let mut entries = Vec::new();
    for arg in settings(command) {
        let Some(flag) = flag_of(arg) else { continue };
        let variable = variable_of(flag);
        let Some(value) = environment(&variable) else {
            continue;
        };
        if value.is_empty() && !EMPTY_MEANS_NONE.contains(&flag) {
            continue;
        }
        let values = if is_list(arg) {
            split_list(&value)
        } else {
            vec![value]
        };
        entries.push(entry(
            command,
            arg,
            flag,
            &values,
            Origin::Environment { variable },
        )?);
    }
    Ok(entries)
}

fn split_list(value: &OsStr) -> Vec<OsString> {
    match value.to_str() {
        Some(text) => text.split(',').map(|part| part.trim().into()).collect(),
        // Not UTF-8: passed on whole, for the value's own parser to refuse or take.
        None => vec![value.to_owned()],
    }
}

fn file_entries(command: &Command, path: &Path) -> Result<Vec<Entry>, LayerError> {
    let mut entries = Vec::new();
    for file::Entry { key, line, values } in file::read(path)? {
        let known = |arg: &&Arg| names(arg).any(|name| name == key) && key != "config";
        let Some(arg) = settings(command).find(known) else {
            let suggestion = suggest(command, &key);
            return Err(LayerError::UnknownKey {
                key,
                path: path.to_owned(),
                line,
                suggestion,
            });
        };
        let flag = flag_of(arg).unwrap_or(&key);
        let origin = |line| Origin::File {
            key: key.clone(),
            path: path.to_owned(),
            line,
        };
        if !is_list(arg) {
            let words: Vec<_> = values.into_iter().map(|word| word.text).collect();
            let values = [words.join(",").into()];
            entries.push(entry(command, arg, flag, &values, origin(line))?);
            continue;
        }
        let mut argv = Vec::new();
        for word in values {
            // Alone, so that what is wrong is named with its own line.
            let origin = origin(word.line.unwrap_or(line));
            argv.extend(entry(command, arg, flag, &[word.text.into()], origin)?.argv);
        }
        entries.push(Entry {
            flag: flag.to_owned(),
            argv,
            origin: origin(line),
        });
    }
    Ok(entries)
}

/// The setting that a misspelt key may have meant, as the parser of flags would suggest it.
fn suggest(command: &Command, key: &str) -> Option<String> {
    let error = command
        .clone()
        .try_get_matches_from([command.get_name(), &format!("--{key}")])
        .err()?;
    let ContextValue::String(flag) = error.get(ContextKind::SuggestedArg)? else {
        return None;
    };
    Some(flag.trim_start_matches('-').to_owned())
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Turns one setting into flags, and refuses it here, alone, if it is wrong.
fn entry(
    command: &Command,
    arg: &Arg,
    flag: &str,
    values: &[OsString],
    origin: Origin,
) -> Result<Entry, LayerError> {
    let argv = if matches!(arg.get_action(), ArgAction::Count) {
        repeated(flag, values, &origin)?
    } else {
        values.iter().map(|value| flag_with(flag, value)).collect()
    };
    let alone = std::iter::once(OsString::from(command.get_name())).chain(argv.iter().cloned());
    command
        .clone()
        .try_get_matches_from(alone)
        .map_err(|mut error| {
            if error.kind() == ErrorKind::InvalidUtf8 {
                return LayerError::NotText {
                    origin: origin.to_string(),
                };
            }
            error.insert(
                ContextKind::InvalidArg,
                ContextValue::String(origin.to_string()),
            );
            LayerError::Usage(one_line(&error))
        })?;
    Ok(Entry {
        flag: flag.to_owned(),
        argv,
        origin,
    })
}

fn flag_with(flag: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(format!("--{flag}="));
    text.push(value);
    text
}

fn repeated(flag: &str, values: &[OsString], origin: &Origin) -> Result<Vec<OsString>, LayerError> {
    let text = values
        .first()
        .map(|value| value.to_string_lossy().into_owned())
        .unwrap_or_default();
    match text.parse::<u8>() {
        Ok(times) if times <= VERBOSE_MAX => {
            Ok(vec![format!("--{flag}").into(); usize::from(times)])
        }
        _ => Err(LayerError::Verbosity {
            value: text,
            origin: origin.to_string(),
        }),
    }
}

fn effective_value(matches: &ArgMatches, arg: &Arg) -> Option<serde_json::Value> {
    let id = arg.get_id().as_str();
    if matches!(arg.get_action(), ArgAction::Count) {
        return Some(matches.get_count(id).into());
    }
    let text = |value: &OsStr| serde_json::Value::from(value.to_string_lossy());
    let mut values: Vec<_> = matches.get_raw(id)?.map(text).collect();
    if is_list(arg) {
        Some(values.into())
    } else {
        values.pop()
    }
}

fn from_clap(error: clap::Error) -> LayerError {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        LayerError::Shown(error)
    } else {
        LayerError::Usage(one_line(&error))
    }
}

/// clap's message without its page of usage: what is wrong, and its hints.
fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim);
    let said = lines.take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let mut joined = String::new();
    for line in said.filter(|line| !line.is_empty()) {
        let gap = if joined.is_empty() {
            ""
        } else if line.starts_with("tip:") {
            "; "
        } else {
            " "
        };
        joined += gap;
        joined += line;
    }
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
