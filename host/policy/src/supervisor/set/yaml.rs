//! `policies.yaml` as a file: where it is, and why it can't be read.

use std::path::{Path, PathBuf};

use device_api_core::limits::POLICIES_FILE_BYTES_MAX as FILE_BYTES_MAX;

use super::super::SupervisorConfig;
use super::Manifest;
use crate::directory::{self, Listing};
use crate::error::PolicyError;
use crate::manifest::{self, POLICIES_FILE};

impl Manifest {
    pub(super) fn read(
        config: &SupervisorConfig,
        listing: Option<&Listing>,
    ) -> Result<Self, String> {
        let (place, read) = match (&config.policies_file, listing) {
            (Some(path), _) => (path.clone(), Some(read_elsewhere(path))),
            (None, Some(listing)) if listing.has_policies_file => {
                let path = config.directory.clone().unwrap_or_default();
                let read = directory::read(&listing.root, POLICIES_FILE, FILE_BYTES_MAX);
                (path.join(POLICIES_FILE), Some(read))
            }
            (None, _) => (PathBuf::new(), None),
        };
        let Some(read) = read else {
            return Ok(Self {
                place,
                listed: Vec::new(),
            });
        };
        let refused = |why: String| {
            format!(
                "{} is refused, and the running set stays: {why}",
                place.display()
            )
        };
        let bytes = read.map_err(|error| refused(unreadable(&error)))?;
        let text = String::from_utf8(bytes).map_err(|_| refused("it is no UTF-8".to_owned()))?;
        let listed =
            manifest::parse(&text, &config.limits).map_err(|error| refused(error.to_string()))?;
        let max = config.call_deadline_max;
        if let Some(slow) = listed.iter().find(|one| one.limits.call_deadline > max) {
            return Err(refused(format!(
                "line {}: limits.call-deadline of {} is {:?}, and at most {max:?} are allowed, half of what a reader waits (--limit barrier-wait)",
                slow.line, slow.name, slow.limits.call_deadline
            )));
        }
        Ok(Self { place, listed })
    }
}

/// Why the file can't be read, in words about a list of policies.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other comes of reading a file"
)]
fn unreadable(error: &PolicyError) -> String {
    match error {
        PolicyError::TooLarge { .. } => manifest::too_large().to_string(),
        PolicyError::NotAFile { found, .. } => {
            format!("it is {found}, not a regular file: put the list itself there")
        }
        PolicyError::Outside { target, .. } => format!(
            "it is a link to {}, outside of the policy directory: copy the file into the directory, or name it with --policies-file",
            target.display()
        ),
        PolicyError::ReadFile { source, .. } => format!(
            "it can't be read, check that the file, or what it links to, exists and its permissions: {source}"
        ),
        error => error.chain(),
    }
}

/// The operator's own path: links are followed wherever they lead.
fn read_elsewhere(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let origin = path.display().to_string();
    let unreadable = |source: std::io::Error| PolicyError::ReadFile {
        origin: origin.clone(),
        source,
    };
    let path = std::fs::canonicalize(path).map_err(unreadable)?;
    let (Some(root), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(unreadable(std::io::ErrorKind::InvalidFilename.into()));
    };
    directory::read(root, name, FILE_BYTES_MAX)
}
