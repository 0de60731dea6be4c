//! How an NVML call failed, and what that means for the device and the session.

use std::fmt;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;

use crate::watch;

/// What a failed call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The device, the driver or this version of the library has no such thing.
    Unsupported,
    /// The GPU is not there any more.
    Lost,
    /// The driver went away under the library: nothing works until it is opened again.
    DriverGone,
    /// The GPU is of no use until it is reset.
    ResetRequired,
    /// Nothing came within the time given.
    TimedOut,
    /// Anything else: this call failed, and no more is known.
    Failed,
}

/// A call that failed. `Display` is fit for evidence: `nvmlDeviceGetTemperature answered GPU_IS_LOST`.
#[derive(Clone, Debug)]
pub(crate) struct CallFailed {
    call: &'static str,
    answer: Answer,
    pub(crate) meaning: Meaning,
}

#[derive(Clone, Debug)]
enum Answer {
    Named(&'static str),
    Code(u32),
    /// It is the wrapper that failed: no such symbol, a string that is no UTF-8.
    Unreadable(String),
}

impl CallFailed {
    pub(crate) fn new(call: &'static str, error: NvmlError) -> Self {
        if matches!(error, NvmlError::FailedToLoadSymbol(_)) {
            watch::absent(call);
            let answer = Answer::Unreadable("is not in this library".to_owned());
            return Self {
                call,
                answer,
                meaning: Meaning::Unsupported,
            };
        }
        let text = error.to_string();
        let code = sys::nvmlReturn_t::from(error);
        let answer = match name(code) {
            // The wrapper turns its own errors into UNKNOWN; their text says more.
            Some("UNKNOWN") if text != NvmlError::Unknown.to_string() => {
                Answer::Unreadable(format!("gave what can't be read: {text}"))
            }
            Some(name) => Answer::Named(name),
            None => Answer::Code(code),
        };
        Self {
            call,
            answer,
            meaning: meaning(code),
        }
    }
}

/// Makes a call, watched. Every call of this crate goes through here.
pub(crate) fn called<T>(
    call: &'static str,
    run: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<T, CallFailed> {
    called_for(call, Duration::ZERO, run)
}

/// A call that waits, for as long as it is meant to.
pub(crate) fn called_for<T>(
    call: &'static str,
    wait: Duration,
    run: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<T, CallFailed> {
    watched_for(call, wait, run).map_err(|error| CallFailed::new(call, error))
}

/// One of several calls that make one answer, watched for itself.
pub(crate) fn watched<T>(
    call: &'static str,
    run: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<T, NvmlError> {
    watched_for(call, Duration::ZERO, run)
}

fn watched_for<T>(
    call: &'static str,
    wait: Duration,
    run: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<T, NvmlError> {
    let _began = watch::begin(call, wait);
    run()
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Answer::Named(name) => write!(f, "{} answered {name}", self.call),
            Answer::Code(code) => write!(f, "{} answered {code}", self.call),
            Answer::Unreadable(text) => write!(f, "{} {text}", self.call),
        }
    }
}

impl std::error::Error for CallFailed {}

fn meaning(code: sys::nvmlReturn_t) -> Meaning {
    match code {
        // NO_PERMISSION is for this process what NOT_SUPPORTED is for all; a field that an older
        // driver does not know is an INVALID_ARGUMENT to it.
        sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED
        | sys::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION
        | sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND
        | sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT
        | sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH => Meaning::Unsupported,
        sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST => Meaning::Lost,
        sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED
        | sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED
        | sys::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH => Meaning::DriverGone,
        sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED => Meaning::ResetRequired,
        sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT => Meaning::TimedOut,
        _ => Meaning::Failed,
    }
}

/// nvml.h's name of a return code, less its `NVML_ERROR_`.
fn name(code: sys::nvmlReturn_t) -> Option<&'static str> {
    Some(match code {
        sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED => "UNINITIALIZED",
        sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT => "INVALID_ARGUMENT",
        sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED => "NOT_SUPPORTED",
        sys::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION => "NO_PERMISSION",
        sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND => "NOT_FOUND",
        sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE => "INSUFFICIENT_SIZE",
        sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_POWER => "INSUFFICIENT_POWER",
        sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED => "DRIVER_NOT_LOADED",
        sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT => "TIMEOUT",
        sys::nvmlReturn_enum_NVML_ERROR_IRQ_ISSUE => "IRQ_ISSUE",
        sys::nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND => "LIBRARY_NOT_FOUND",
        sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND => "FUNCTION_NOT_FOUND",
        sys::nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM => "CORRUPTED_INFOROM",
        sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST => "GPU_IS_LOST",
        sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED => "RESET_REQUIRED",
        sys::nvmlReturn_enum_NVML_ERROR_OPERATING_SYSTEM => "OPERATING_SYSTEM",
        sys::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH => "LIB_RM_VERSION_MISMATCH",
        sys::nvmlReturn_enum_NVML_ERROR_IN_USE => "IN_USE",
        sys::nvmlReturn_enum_NVML_ERROR_MEMORY => "MEMORY",
        sys::nvmlReturn_enum_NVML_ERROR_NO_DATA => "NO_DATA",
        sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES => "INSUFFICIENT_RESOURCES",
        sys::nvmlReturn_enum_NVML_ERROR_NOT_READY => "NOT_READY",
        sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN => "UNKNOWN",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: NvmlError, meaning: Meaning, text: &str) {
        let failed = CallFailed::new("nvmlX", error);
        assert_eq!(
            (failed.meaning, failed.to_string().as_str()),
            (meaning, text)
        );
    }

    #[test]
    fn a_failure_says_what_was_called_and_what_came() {
        check(
            NvmlError::GpuLost,
            Meaning::Lost,
            "nvmlX answered GPU_IS_LOST",
        );
        check(
            NvmlError::Uninitialized,
            Meaning::DriverGone,
            "nvmlX answered UNINITIALIZED",
        );
        check(
            NvmlError::NotSupported,
            Meaning::Unsupported,
            "nvmlX answered NOT_SUPPORTED",
        );
        check(
            NvmlError::Timeout,
            Meaning::TimedOut,
            "nvmlX answered TIMEOUT",
        );
        check(
            NvmlError::ResetRequired,
            Meaning::ResetRequired,
            "nvmlX answered RESET_REQUIRED",
        );
        check(
            NvmlError::Unknown,
            Meaning::Failed,
            "nvmlX answered UNKNOWN",
        );
        check(
            NvmlError::UnexpectedVariant(77),
            Meaning::Failed,
            "nvmlX answered 77",
        );
        check(
            NvmlError::FailedToLoadSymbol("undefined symbol: nvmlX".to_owned()),
            Meaning::Unsupported,
            "nvmlX is not in this library",
        );
        check(
            NvmlError::SetReleaseFailed,
            Meaning::Failed,
            "nvmlX gave what can't be read: a call to `EventSet.release_events()` failed",
        );
    }
}
