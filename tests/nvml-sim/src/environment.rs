//! The environment variables, read and checked.

use std::env::{self, VarError};
use std::path::PathBuf;

use crate::clock::check_speed;
use crate::kmsg::Format;
use crate::node::Versions;
use crate::profile::{GPUS_DEFAULT, GPUS_MAX, Profile, cuda_of};
use crate::scenario::{self, Scenario};

pub(crate) const PROFILE: &str = "NVML_SIM_PROFILE";
pub(crate) const GPUS: &str = "NVML_SIM_GPUS";
pub(crate) const DRIVER: &str = "NVML_SIM_DRIVER";
pub(crate) const SOCKET: &str = "NVML_SIM_SOCKET";
pub(crate) const KMSG: &str = "NVML_SIM_KMSG";
pub(crate) const KMSG_FORMAT: &str = "NVML_SIM_KMSG_FORMAT";
pub(crate) const SCENARIO: &str = "NVML_SIM_SCENARIO";
pub(crate) const SPEED: &str = "NVML_SIM_SPEED";

/// What to simulate.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) profile: &'static Profile,
    pub(crate) gpus: u32,
    pub(crate) versions: Versions,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) kmsg: Option<PathBuf>,
    pub(crate) kmsg_format: Format,
    pub(crate) scenario: Option<Scenario>,
    pub(crate) speed: f64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("{0} is not UTF-8: unset it or give it a plain value")]
    NotText(&'static str),
    #[error("{PROFILE}={value} is no profile: use one of {known}", known = Profile::keys())]
    Profile { value: String },
    #[error("{GPUS}={value} is no count of GPUs: use 1 to {GPUS_MAX}")]
    Gpus { value: String },
    #[error("{DRIVER}={value} is no driver version: use one as 580.82.07, of branch 450 or later")]
    Driver { value: String },
    #[error("{KMSG_FORMAT}={value} is no format: use plain or records")]
    KmsgFormat { value: String },
    #[error("{SPEED}: {reason}")]
    Speed { reason: String },
    #[error("{SCENARIO}={}: {reason}", path.display())]
    Scenario { path: PathBuf, reason: String },
}

impl Environment {
    pub(crate) fn read() -> Result<Self, EnvironmentError> {
        let scenario = path(SCENARIO).map(scenario).transpose()?;
        let of_scenario = scenario
            .as_ref()
            .map(|scenario| (scenario.profile(), scenario.gpus));
        let profile = text(PROFILE)?.map(profile).transpose()?;
        let gpus = text(GPUS)?.map(gpus).transpose()?;
        Ok(Self {
            profile: profile
                .or(of_scenario.map(|of| of.0))
                .unwrap_or_else(Profile::standard),
            gpus: gpus.or(of_scenario.map(|of| of.1)).unwrap_or(GPUS_DEFAULT),
            versions: Versions::new(text(DRIVER)?.map(driver).transpose()?),
            socket: path(SOCKET),
            kmsg: path(KMSG),
            kmsg_format: text(KMSG_FORMAT)?.map_or(Ok(Format::Plain), format)?,
            scenario,
            speed: text(SPEED)?.map_or(Ok(1.0), speed)?,
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

fn driver(value: String) -> Result<String, EnvironmentError> {
    match cuda_of(&value) {
        Some(_) => Ok(value),
        None => Err(EnvironmentError::Driver { value }),
    }
}

fn format(value: String) -> Result<Format, EnvironmentError> {
    match value.as_str() {
        "plain" => Ok(Format::Plain),
        "records" => Ok(Format::Records),
        _ => Err(EnvironmentError::KmsgFormat { value }),
    }
}

fn speed(value: String) -> Result<f64, EnvironmentError> {
    let number = value.parse().map_err(|_| format!("{value} is no number"));
    number
        .and_then(check_speed)
        .map_err(|reason| EnvironmentError::Speed { reason })
}

fn scenario(path: PathBuf) -> Result<Scenario, EnvironmentError> {
    scenario::read(&path).map_err(|error| EnvironmentError::Scenario {
        path,
        reason: error.to_string(),
    })
}
