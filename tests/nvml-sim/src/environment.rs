//! The environment variables, read and checked.

use std::env::{self, VarError};
use std::path::PathBuf;

use crate::profile::{GPUS_DEFAULT, GPUS_MAX, PROFILES, Profile};

pub(crate) const PROFILE: &str = "NVML_SIM_PROFILE";
pub(crate) const GPUS: &str = "NVML_SIM_GPUS";
pub(crate) const SOCKET: &str = "NVML_SIM_SOCKET";
pub(crate) const KMSG: &str = "NVML_SIM_KMSG";

/// What to simulate.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) profile: &'static Profile,
    pub(crate) gpus: u32,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) kmsg: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("{0} is not UTF-8: unset it or give it a plain value")]
    NotText(&'static str),
    #[error("{PROFILE}={value} is no profile: use one of {known}", known = known_profiles())]
    Profile { value: String },
    #[error("{GPUS}={value} is no count of GPUs: use 1 to {GPUS_MAX}")]
    Gpus { value: String },
}

impl Environment {
    pub(crate) fn read() -> Result<Self, EnvironmentError> {
        Ok(Self {
            profile: text(PROFILE)?.map_or(Ok(Profile::standard()), profile)?,
            gpus: text(GPUS)?.map_or(Ok(GPUS_DEFAULT), gpus)?,
            socket: path(SOCKET),
            kmsg: path(KMSG),
        })
    }
}

fn text(name: &'static str) -> Result<Option<String>, EnvironmentError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(EnvironmentError::NotText(name)),
    }
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn profile(value: String) -> Result<&'static Profile, EnvironmentError> {
    Profile::named(&value).ok_or(EnvironmentError::Profile { value })
}

fn gpus(value: String) -> Result<u32, EnvironmentError> {
    let count = value
        .parse()
        .ok()
        .filter(|count| (1..=GPUS_MAX).contains(count));
    count.ok_or(EnvironmentError::Gpus { value })
}

fn known_profiles() -> String {
    PROFILES.each_ref().map(|profile| profile.key).join(", ")
}
