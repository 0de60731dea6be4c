//! The closed sets of words, each with its spelling in the file, which never changes.

use device_api_core::action::Action;
use device_api_core::condition::{Owner, Polarity};
use device_api_core::durable::LogPosition;
use device_api_core::incident::IncidentState;
use device_api_core::policy::PolicyId;
use device_api_core::seating::Fallback;
use device_api_core::signal::{SignalKind, Source, Value};
use device_api_core::verdict::{ClearOn, Judgement, Severity};
use serde::{Deserialize, Serialize};

use super::BadRecord;
use super::stored::{Hex, Stored};

/// An enum without data. What an old file leaves out is the variant marked `else`.
macro_rules! words {
    ($type:ident as $form:ident { $($variant:ident = $word:literal),* } else $default:ident) => {
        #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
        pub(super) enum $form {
            $(#[serde(rename = $word)] $variant),*
        }
        impl Default for $form {
            fn default() -> Self {
                Self::$default
            }
        }
        impl Stored for $type {
            type Form = $form;
            fn form(&self) -> $form {
                match self { $(Self::$variant => $form::$variant),* }
            }
            fn of_form(form: $form) -> Result<Self, BadRecord> {
                Ok(match form { $($form::$variant => Self::$variant),* })
            }
        }
    };
}

words!(Judgement as JudgementForm {
    Ok = "ok", Problem = "problem", Unknown = "unknown"
} else Unknown);

words!(Severity as SeverityForm {
    Info = "info", Warning = "warning", Fatal = "fatal"
} else Fatal);

words!(Polarity as PolarityForm {
    TrueIsHealthy = "true-is-healthy", TrueIsProblem = "true-is-problem"
} else TrueIsProblem);

words!(Action as ActionForm {
    None = "NONE", ComponentReset = "COMPONENT_RESET", RestartVm = "RESTART_VM",
    RestartBm = "RESTART_BM", RunDcgmEud = "RUN_DCGMEUD", RunFieldDiag = "RUN_FIELDDIAG",
    ContactSupport = "CONTACT_SUPPORT", ReplaceVm = "REPLACE_VM"
} else None);

words!(ClearOn as ClearOnForm {
    GpuReset = "gpu-reset", DriverRebind = "driver-rebind", NodeReboot = "node-reboot",
    Replacement = "replacement", RecoveryNone = "recovery-none", Quiet = "quiet",
    Policy = "policy", Operator = "operator"
} else Operator);

words!(SignalKind as SignalKindForm {
    Xid = "xid", Sxid = "sxid", Ecc = "ecc", Reading = "reading", GpuLost = "gpu-lost",
    GpuFound = "gpu-found", RecoveryAction = "recovery-action", Timer = "timer"
} else Xid);

words!(Fallback as FallbackForm {
    Catalogue = "catalogue", Unhealthy = "unhealthy", Ignore = "ignore"
} else Catalogue);

/// An enum with data: written out, by variant.
macro_rules! variants {
    ($type:ident as $form:ident else $default:expr) => {
        impl Default for $form {
            fn default() -> Self {
                $default
            }
        }
        impl Stored for $type {
            type Form = $form;
            fn form(&self) -> $form {
                $form::from(self)
            }
            fn of_form(form: $form) -> Result<Self, BadRecord> {
                Self::try_from(form)
            }
        }
    };
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OwnerForm {
    Host,
    Policy(<PolicyId as Stored>::Form),
    Provider(String),
}
variants!(Owner as OwnerForm else OwnerForm::Host);

impl From<&Owner> for OwnerForm {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Host => Self::Host,
            Owner::Policy(id) => Self::Policy(id.form()),
            Owner::Provider(name) => Self::Provider(name.form()),
        }
    }
}

impl TryFrom<OwnerForm> for Owner {
    type Error = BadRecord;
    fn try_from(form: OwnerForm) -> Result<Self, BadRecord> {
        Ok(match form {
            OwnerForm::Host => Self::Host,
            OwnerForm::Policy(id) => Self::Policy(PolicyId::of_form(id)?),
            OwnerForm::Provider(name) => Self::Provider(name.into()),
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SourceForm {
    Nvml,
    Kmsg,
    #[serde(rename = "field-230")]
    Field230,
    Provider(String),
    Host,
}
variants!(Source as SourceForm else SourceForm::Host);

impl From<&Source> for SourceForm {
    fn from(source: &Source) -> Self {
        match source {
            Source::Nvml => Self::Nvml,
            Source::Kmsg => Self::Kmsg,
            Source::Field230 => Self::Field230,
            Source::Provider(name) => Self::Provider(name.form()),
            Source::Host => Self::Host,
        }
    }
}

impl TryFrom<SourceForm> for Source {
    type Error = BadRecord;
    fn try_from(form: SourceForm) -> Result<Self, BadRecord> {
        Ok(match form {
            SourceForm::Nvml => Self::Nvml,
            SourceForm::Kmsg => Self::Kmsg,
            SourceForm::Field230 => Self::Field230,
            SourceForm::Provider(name) => Self::Provider(name.into()),
            SourceForm::Host => Self::Host,
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ValueForm {
    Flag(bool),
    Int(i64),
    /// The bits of the number: JSON has no NaN and no infinity, and decimal digits may round.
    RealBits(u64),
    Text(String),
    Bytes(Hex),
}
variants!(Value as ValueForm else ValueForm::Flag(false));

impl From<&Value> for ValueForm {
    fn from(value: &Value) -> Self {
        match value {
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Int(int) => Self::Int(*int),
            Value::Real(real) => Self::RealBits(real.to_bits()),
            Value::Text(text) => Self::Text(text.clone()),
            Value::Bytes(bytes) => Self::Bytes(Hex::of(bytes)),
        }
    }
}

impl TryFrom<ValueForm> for Value {
    type Error = BadRecord;
    fn try_from(form: ValueForm) -> Result<Self, BadRecord> {
        Ok(match form {
            ValueForm::Flag(flag) => Self::Flag(flag),
            ValueForm::Int(int) => Self::Int(int),
            ValueForm::RealBits(bits) => Self::Real(f64::from_bits(bits)),
            ValueForm::Text(text) => Self::Text(text),
            ValueForm::Bytes(hex) => Self::Bytes(hex.bytes()?),
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum IncidentStateForm {
    Open,
    Closed { at: u64, why: String },
}
variants!(IncidentState as IncidentStateForm else IncidentStateForm::Open);

impl From<&IncidentState> for IncidentStateForm {
    fn from(state: &IncidentState) -> Self {
        match state {
            IncidentState::Open => Self::Open,
            IncidentState::Closed { at, why } => Self::Closed {
                at: at.form(),
                why: why.form(),
            },
        }
    }
}

impl TryFrom<IncidentStateForm> for IncidentState {
    type Error = BadRecord;
    fn try_from(form: IncidentStateForm) -> Result<Self, BadRecord> {
        Ok(match form {
            IncidentStateForm::Open => Self::Open,
            IncidentStateForm::Closed { at, why } => Self::Closed {
                at: Stored::of_form(at)?,
                why,
            },
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LogPositionForm {
    Record { boot: String, sequence: u64 },
    File { id: (u64, u64), offset: u64 },
}
variants!(LogPosition as LogPositionForm else LogPositionForm::Record {
    boot: String::new(),
    sequence: 0,
});

impl From<&LogPosition> for LogPositionForm {
    fn from(position: &LogPosition) -> Self {
        match position {
            LogPosition::Record { boot, sequence } => Self::Record {
                boot: boot.form(),
                sequence: *sequence,
            },
            LogPosition::File { id, offset } => Self::File {
                id: *id,
                offset: *offset,
            },
        }
    }
}

impl TryFrom<LogPositionForm> for LogPosition {
    type Error = BadRecord;
    fn try_from(form: LogPositionForm) -> Result<Self, BadRecord> {
        Ok(match form {
            LogPositionForm::Record { boot, sequence } => Self::Record {
                boot: Stored::of_form(boot)?,
                sequence,
            },
            LogPositionForm::File { id, offset } => Self::File { id, offset },
        })
    }
}
