//! The set that a site wants: the bundled policies, the directory's, and what `policies.yaml` says of
//! either (design H6, H7, H14). Read as a whole or not at all.

mod yaml;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use device_api_core::policy_status::Mode;
use device_api_core::seating::Terms;

use super::{SupervisorConfig, Unlisted};
use crate::directory::{self, ENDING, Found, Listing, Room};
use crate::error::PolicyError;
use crate::ledger::{setting, sha256};
use crate::manifest::{Listed, POLICIES_FILE};
use crate::source::{Bytes, PolicySource, bundled_name};

/// What tells two wishes for a policy apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) digest: Arc<str>,
    pub(crate) config: String,
    pub(crate) limits: device_api_wasm::Limits,
    pub(crate) terms: Terms,
}

impl Key {
    /// What the file is run with, as the ledger has it.
    pub(crate) fn setting(&self) -> String {
        setting(&self.config, &self.limits)
    }
}

/// One policy as the site wants it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As the site names it; `None`: what the component calls itself.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) mode: Mode,
    pub(crate) is_bundled: bool,
    /// By an entry of `policies.yaml`.
    pub(crate) is_listed: bool,
    pub(crate) key: Key,
    pub(crate) source: PolicySource,
}

/// A file that can't be part of the set; the others can.
#[derive(Clone, Debug)]
pub(crate) struct Unusable {
    pub(crate) file: String,
    /// As `policies.yaml` has it, where it does.
    pub(crate) listed: Option<(Arc<str>, Mode)>,
    pub(crate) error: Arc<PolicyError>,
}

/// Cheap to clone: bytes and errors are shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Set {
    /// The bundled ones in their order, then the listed ones in theirs, then the unlisted by file name, those
    /// in use first.
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) unusable: Vec<Unusable>,
}

impl Wanted {
    fn new(name: Option<Arc<str>>, mode: Mode, digest: String, source: PolicySource) -> Self {
        let key = Key {
            digest: digest.into(),
            config: source.config.clone(),
            limits: source.limits,
            terms: source.terms.clone(),
        };
        Self {
            name,
            mode,
            is_bundled: bundled_name(&source.origin).is_some(),
            is_listed: false,
            key,
            source,
        }
    }

    fn bundled(source: &PolicySource) -> Self {
        let name = Some(name_of(source).into());
        Self::new(name, Mode::Enforce, sha256(&source.bytes), source.clone())
    }
}

/// The bundled policies with their defaults: what runs where nothing else can.
pub(crate) fn bundled(config: &SupervisorConfig) -> Vec<Wanted> {
    config.bundled.iter().map(Wanted::bundled).collect()
}

fn name_of(source: &PolicySource) -> &str {
    bundled_name(&source.origin).unwrap_or(&source.origin)
}

/// What judges, or looks on, as far as it matters for what is read.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    /// The running set has policies of the directory.
    pub(crate) has_files: bool,
    /// From which, where the bounds of a set do not fit all.
    pub(crate) files: BTreeSet<String>,
}

/// Reads what is wanted. `defaults`: the bundled ones, hashed. `left_out`: files that change all the time, which are not read.
///
/// # Errors
/// Why the set as a whole is refused, and what to do: the running one stays.
pub(crate) fn read(
    config: &SupervisorConfig,
    defaults: &[Wanted],
    in_use: &InUse,
    left_out: &BTreeSet<String>,
) -> Result<Set, String> {
    let listing = match &config.directory {
        Some(directory) => Some(
            directory::list(directory)
                .map_err(|error| format!("{}; the running set stays", error.chain()))?,
        ),
        None => None,
    };
    let manifest = Manifest::read(config, listing.as_ref())?;
    if let (Some(listing), Some(directory)) = (&listing, &config.directory)
        && listing.policies.is_empty()
        && !listing.has_policies_file
        && left_out.is_empty()
        && in_use.has_files
    {
        return Err(format!(
            "policy directory {} is empty, as one is whose volume is gone: the running set stays; to remove \
             the last policy, leave a {POLICIES_FILE} there",
            directory.display()
        ));
    }
    let files = listing.map(|listing| Files {
        listing,
        in_use,
        left_out,
        room: Room::default(),
    });
    manifest.resolve(config, defaults, files)
}

/// The directory's.
struct Files<'a> {
    listing: Listing,
    in_use: &'a InUse,
    left_out: &'a BTreeSet<String>,
    room: Room,
}

impl Files<'_> {
    fn read(&mut self, file: &str, bytes_max: usize) -> Result<Found, PolicyError> {
        if self.left_out.contains(file) {
            let origin = directory::origin(file);
            return Err(PolicyError::Changing { origin });
        }
        directory::read_component(&self.listing.root, file, bytes_max, &mut self.room)
    }

    /// Those in use first, then by name; those included that are there at times.
    fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.listing.policies.iter().chain(self.left_out).collect();
        let mut names: Vec<String> = names.into_iter().cloned().collect();
        names.sort_by_key(|name| !self.in_use.files.contains(name));
        names
    }
}

/// `policies.yaml`, read.
struct Manifest {
    /// For messages.
    place: PathBuf,
    listed: Vec<Listed>,
}

impl Manifest {
    fn resolve(
        &self,
        config: &SupervisorConfig,
        defaults: &[Wanted],
        mut files: Option<Files<'_>>,
    ) -> Result<Set, String> {
        let mut set = Set::default();
        for wanted in defaults {
            let source = &wanted.source;
            let name = name_of(source);
            let listed = self.listed.iter().find(|listed| &*listed.name == name);
            match listed {
                // The bundled one goes on judging, and a file of that name takes its place.
                Some(listed) if listed.mode == Mode::Shadow => {
                    return Err(self.refused(listed, "name", &format!(
                        "{name:?} is the bundled policy's, which goes on judging: give the shadow another name, and a file"
                    )));
                }
                Some(listed) if listed.file.is_none() => {
                    let digest = wanted.key.digest.to_string();
                    let source = on_terms(listed, source.origin.clone(), source.bytes.clone());
                    set.wanted.push(self.pinned(listed, digest, source)?);
                }
                Some(_) => {}
                None => set.wanted.push(wanted.clone()),
            }
        }
        for listed in &self.listed {
            if let Some(file) = &listed.file {
                self.take(files.as_mut(), listed, file, &mut set)?;
            } else if !defaults
                .iter()
                .any(|wanted| name_of(&wanted.source) == &*listed.name)
            {
                let known = defaults.iter().map(|wanted| name_of(&wanted.source));
                let known: Vec<&str> = known.collect();
                let what = format!(
                    "is missing, and the bundled policies are {}",
                    known.join(", ")
                );
                return Err(self.refused(listed, "file", &what));
            }
        }
        if let Some(files) = &mut files {
            self.unlisted(config, files, &mut set);
        }
        Ok(set)
    }

    /// A listed file. That it changes all the time is its own affair.
    fn take(
        &self,
        files: Option<&mut Files<'_>>,
        listed: &Listed,
        file: &str,
        set: &mut Set,
    ) -> Result<(), String> {
        let Some(files) = files else {
            let what = format!("{file} can't be read without a policy directory: set --policy-dir");
            return Err(self.refused(listed, "file", &what));
        };
        match files.read(file, listed.limits.component_bytes_max) {
            Ok(Found { bytes, digest }) => {
                let source = on_terms(listed, directory::origin(file), bytes);
                set.wanted.push(self.pinned(listed, digest, source)?);
            }
            Err(error @ PolicyError::Changing { .. }) => set.unusable.push(Unusable {
                file: directory::origin(file),
                listed: Some((Arc::clone(&listed.name), listed.mode)),
                error: Arc::new(error),
            }),
            Err(error) => return Err(self.refused(listed, "file", &error.chain())),
        }
        Ok(())
    }

    fn pinned(
        &self,
        listed: &Listed,
        digest: String,
        source: PolicySource,
    ) -> Result<Wanted, String> {
        let origin = source.origin.clone();
        let name = Some(Arc::clone(&listed.name));
        let wanted = Wanted {
            is_listed: true,
            ..Wanted::new(name, listed.mode, digest, source)
        };
        match &listed.sha256 {
            Some(pin) if **pin != *wanted.key.digest => {
                let what = format!(
                    "{origin} has the SHA-256 {}, and {pin} is pinned: put the right file there, or correct the pin",
                    wanted.key.digest
                );
                Err(self.refused(listed, "sha256", &what))
            }
            Some(_) | None => Ok(wanted),
        }
    }

    fn unlisted(&self, config: &SupervisorConfig, files: &mut Files<'_>, set: &mut Set) {
        let is_listed = |file: &str| {
            let mut listed = self.listed.iter();
            listed.any(|listed| listed.file.as_deref() == Some(file))
        };
        for file in files.names().iter().filter(|file| !is_listed(file)) {
            let origin = directory::origin(file);
            let read = if config.unlisted == Unlisted::Refuse {
                Err(PolicyError::Unlisted {
                    origin: origin.clone(),
                })
            } else {
                files.read(file, config.limits.component_bytes_max)
            };
            match read {
                Ok(Found { bytes, digest }) => {
                    let source = PolicySource {
                        origin,
                        bytes,
                        config: String::new(),
                        limits: config.limits,
                        terms: Terms::default(),
                    };
                    set.wanted
                        .push(Wanted::new(None, Mode::Enforce, digest, source));
                }
                Err(error) => set.unusable.push(Unusable {
                    file: origin,
                    listed: None,
                    error: Arc::new(error),
                }),
            }
        }
        let misnamed = files.listing.misnamed.iter();
        set.unusable.extend(misnamed.map(|name| {
            let file = directory::origin(name);
            let origin = file.clone();
            Unusable {
                file,
                listed: None,
                error: Arc::new(PolicyError::Misnamed { origin }),
            }
        }));
    }

    fn refused(&self, listed: &Listed, field: &str, what: &str) -> String {
        format!(
            "{} is refused, and the running set stays: line {}, policy {:?}, {field}: {what}",
            self.place.display(),
            listed.line,
            listed.name
        )
    }
}

fn on_terms(listed: &Listed, origin: String, bytes: Bytes) -> PolicySource {
    PolicySource {
        origin,
        bytes,
        config: listed.config.clone(),
        limits: listed.limits,
        terms: listed.terms.clone(),
    }
}

/// What a file that nothing else is known of is called.
pub(crate) fn stem(file: &str) -> &str {
    file.strip_suffix(ENDING).unwrap_or(file)
}
