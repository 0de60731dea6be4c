//! What can go wrong with a policy before it may judge anything, one variant per failed operation.

use std::error::Error as _;
use std::path::PathBuf;

use device_api_core::limits::POLICY_DIGEST_DIGITS_MIN;
use device_api_wasm::{CallError, CompilerError, EngineError, LoadError};

/// No policy can be run on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyHostError {
    #[error("policies can't be run here")]
    Engine(#[from] EngineError),
    #[error("policies can't be compiled here")]
    Compiler(#[from] CompilerError),
    /// It is left as it is: without it, what was quarantined would judge again.
    #[error(
        "{file} is of format version {found}, and this daemon reads up to {reads}: a newer daemon wrote it. Run that one; \
         or move the file away, as {file}.damaged-newer, and lose what it knew: versions of the policy directory wait for \
         `devicectl policy accept` then, and pauses and quarantines are forgotten",
        file = .path.display()
    )]
    NewerLedger {
        path: PathBuf,
        found: u32,
        reads: u32,
    },
    #[error("the policy supervisor gets no thread: check the process and thread limits")]
    Thread(#[source] std::io::Error),
}

/// One policy can't be used; the others can. `Display` names the file and leaves its source out:
/// [`PolicyError::chain`] is the whole story on one line, to be logged once by whoever gets it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    #[error("policy directory {} can't be read: check that it exists and its permissions", .path.display())]
    ReadDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("policy directory {} has more than {max} entries: is it the right one?", .path.display())]
    CrowdedDirectory { path: PathBuf, max: usize },
    #[error(
        "policy {origin} is not loaded: there are {max} others before it, which is the most allowed"
    )]
    TooMany { origin: String, max: usize },
    #[error(
        "policy {origin} is not read: the name of a policy's file ends in .wasm, in small letters, and is UTF-8: rename the file"
    )]
    Misnamed { origin: String },
    #[error("policy {origin} is {found}, not a regular file: put the component itself there")]
    NotAFile { origin: String, found: &'static str },
    #[error(
        "policy {origin} is a link to {}, outside of the policy directory: copy the file into the directory",
        .target.display()
    )]
    Outside { origin: String, target: PathBuf },
    #[error(
        "policy {origin} can't be read: check that the file, or what it links to, exists and its permissions"
    )]
    ReadFile {
        origin: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "policy {origin} has more than {max} bytes: strip it, or raise its limit component-bytes-max"
    )]
    TooLarge { origin: String, max: usize },
    #[error(
        "policy {origin} is not read: with it the set's files would have more than {max} bytes together, which is the most that is held at once: strip them, or take one away"
    )]
    TooLargeTogether { origin: String, max: usize },
    #[error(
        "policy {origin} changes while it is read: what ran before runs on, and it is read again; write it elsewhere, and rename it into its place"
    )]
    Changing { origin: String },
    /// No fault of its own: it is loaded once that is done.
    #[error("policy {origin} is being compiled, and takes its seat once that is done")]
    Compiling { origin: String },
    /// The source says what the file is, and what to do.
    #[error("policy {origin} can't be loaded")]
    Load {
        origin: String,
        #[source]
        source: LoadError,
    },
    /// The source says what it ran into, and what to do.
    #[error(
        "policy {origin} can't be loaded, and is not compiled again unless `devicectl policy reload` asks for it, once a run"
    )]
    TooMuch {
        origin: String,
        #[source]
        source: LoadError,
    },
    #[error("policy {origin} can't be configured")]
    Configure {
        origin: String,
        #[source]
        source: CallError,
    },
    /// `said` is the guest's own word.
    #[error("policy {origin} refuses its configuration: {said}")]
    Refused { origin: String, said: String },
    #[error("policy {origin} describes itself in a way that the contract does not allow: {what}")]
    Invalid { origin: String, what: String },
    #[error("policy {origin} gets no thread: check the process and thread limits")]
    Thread {
        origin: String,
        #[source]
        source: std::io::Error,
    },
    #[error("policy {origin} is named {name:?}, and so is {other}: remove one of the two")]
    DuplicateName {
        origin: String,
        name: String,
        other: String,
    },
    /// `entry` is for `holder`.
    #[error(
        "policy {origin} is not listed in policies.yaml, and names itself {entry:?}, as the entry there does that is for {holder}: set `file: {origin}` in that entry to have it judge, or remove the file"
    )]
    EntryOfAnother {
        origin: String,
        entry: String,
        holder: String,
    },
    #[error(
        "policy {origin} is listed as the shadow {name:?}, and {other} judges by that name: give the shadow another name"
    )]
    ShadowOfOwnName {
        origin: String,
        name: String,
        other: String,
    },
    #[error(
        "policy {origin} looked on as a shadow, and its entry is gone from policies.yaml, which does not have it judge: list it under the name that it gives itself, or remove the file"
    )]
    WasShadow { origin: String },
    #[error(
        "policy {origin} owns the condition type {condition:?}, and so does {other}: remove one of the two"
    )]
    DuplicateType {
        origin: String,
        condition: String,
        other: String,
    },
    #[error(
        "policy {origin} is not listed in policies.yaml, and unlisted policies are refused: list it there, or start with --unlisted-policies=defaults"
    )]
    Unlisted { origin: String },
    #[error(
        "policy {origin} names itself {found:?}, and policies.yaml lists it as {listed:?}: correct the name there"
    )]
    OtherName {
        origin: String,
        found: String,
        listed: String,
    },
    /// `release` is the command that lets it be tried again.
    #[error("policy {origin} is quarantined ({why}): replace it, or try it again with `{release}`")]
    Quarantined {
        origin: String,
        why: String,
        release: String,
    },
    /// `asked` is what it was asked, as in `XID 63`.
    #[error(
        "policy {origin} failed when it was tried before its admission, on {asked}: {why}: mend it, or, where that names a limit, raise it among its limits in policies.yaml"
    )]
    Trial {
        origin: String,
        asked: String,
        why: String,
    },
    /// No fault of its own: without an answer the brake is blind. `asked` is what it was asked.
    #[error(
        "policy {origin} could not be tried before its admission, on {asked}: the node had no processor time or memory for it; it is tried again in a while"
    )]
    Untried { origin: String, asked: String },
    #[error("policy {origin} gets no seat: {why}")]
    Seat { origin: String, why: String },
    /// One that is kept: of a file that could not be loaded before and was not tried again, or of a set that is gone over
    /// again. Where the variant counts, ask [`Self::root`].
    #[error(transparent)]
    Again(std::sync::Arc<PolicyError>),
}

/// A command about one version of a policy, as an operator types it.
pub(crate) fn command(verb: &str, name: &str, digest: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    let name = if name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    };
    let digits: String = digest.chars().take(POLICY_DIGEST_DIGITS_MIN).collect();
    format!("devicectl policy {verb} {name} --digest {digits}")
}

/// The node had no processor time, or no memory, for it.
pub(crate) fn is_want_of_means(error: &CallError) -> bool {
    error.is_starvation() || matches!(error, CallError::Instantiate { .. })
}

impl PolicyError {
    /// What happened, whether or not it is told again.
    pub(crate) fn root(&self) -> &Self {
        if let Self::Again(error) = self {
            error.root()
        } else {
            self
        }
    }

    /// Whether the same file may fare better in a while: the machine was short of something, or it is not
    /// compiled yet.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most are told of by name in `chain`, and none goes away by itself"
    )]
    pub fn is_transient(&self) -> bool {
        match self.root() {
            Self::Compiling { .. }
            | Self::Changing { .. }
            | Self::Thread { .. }
            | Self::Untried { .. }
            | Self::ReadFile { .. } => true,
            Self::Load { source, .. } => source.is_transient(),
            Self::Configure { source, .. } => is_want_of_means(source),
            _ => false,
        }
    }

    /// This error and its sources on one line.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "one variant alone has a limit to be raised"
    )]
    pub fn chain(&self) -> String {
        let root = self.root();
        // What the engine says of a file or a call begins with its verb.
        let is_of_engine = matches!(
            root,
            Self::Load { .. } | Self::TooMuch { .. } | Self::Configure { .. }
        );
        let joint = if is_of_engine { ": it " } else { ": " };
        let sources = std::iter::successors(root.source(), |error: &&dyn std::error::Error| {
            (*error).source()
        });
        let sources: Vec<String> = sources.map(ToString::to_string).collect();
        let limit = match root {
            Self::Configure { source, .. } => source.limit_name(true),
            _ => None,
        };
        let advice = limit.map_or_else(String::new, |limit| {
            format!(": have it need less, or raise {limit} among its limits in policies.yaml")
        });
        if sources.is_empty() {
            root.to_string()
        } else {
            format!("{root}{joint}{}{advice}", sources.join(": "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn a_command_is_typed_as_it_stands_there() {
        let digest = "0123456789abcdef";
        let plain = "devicectl policy release xid-policy --digest 0123456789ab";
        assert_eq!(command("release", "xid-policy", digest), plain);
        let quoted = r"devicectl policy accept 'it'\''s $(x)' --digest 0123456789ab";
        assert_eq!(command("accept", "it's $(x)", digest), quoted);
    }
}
