//! What an answer that is no error says of its call, for the audit log: that something was asked for and not done
//! is no error to everybody, and stands in answers.

use device_api_proto::Encoded;
use device_api_proto::native::{self, server};

/// What came of a call that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// And there is more to know of it.
    DoneBut(String),
    /// Of some of it nothing came: of what, and why.
    InPart(String),
    /// Nothing was done: why.
    Refused(String),
}

impl Outcome {
    /// As the audit log has it; [`Self::Done`] as gRPC does.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Done | Self::DoneBut(_) => "OK",
            Self::InPart(_) => "in-part",
            Self::Refused(_) => "refused",
        }
    }

    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::DoneBut(why) | Self::InPart(why) | Self::Refused(why) => Some(why),
        }
    }
}

/// An answer to a call that changes something. **Every** such answer says what came of the call, so that none is
/// taken for done that was refused.
pub(crate) trait Answered {
    fn outcome(&self) -> Outcome;
}

/// Answers that there are only when what was asked for was done.
macro_rules! done {
    ($($answer:ty),* $(,)?) => {
        $(impl Answered for $answer {
            fn outcome(&self) -> Outcome {
                Outcome::Done
            }
        })*
    };
}

done!(
    (),
    Encoded,
    server::ClearConditionResponse,
    server::CreateGpuResponse,
    server::RegisterGpuResponse,
    server::ReportResetResponse,
    native::DeleteGpuResponse,
    native::ForgetProviderResponse,
    native::HeartbeatResponse,
    native::RegisterProviderResponse,
    native::UnregisterGpuResponse,
);

impl Answered for native::ReloadPoliciesResponse {
    fn outcome(&self) -> Outcome {
        if !self.refused.is_empty() {
            return Outcome::Refused(format!("the whole set: {}", self.refused));
        }
        refused(&self.outcomes).map_or(Outcome::Done, Outcome::InPart)
    }
}

/// Commands on one policy are carried out, and hold, whatever comes of the reload that follows.
macro_rules! commands {
    ($($answer:ty),* $(,)?) => {
        $(impl Answered for $answer {
            fn outcome(&self) -> Outcome {
                if !self.refused.is_empty() {
                    return Outcome::DoneBut(format!("the whole set is refused: {}", self.refused));
                }
                refused(&self.outcomes).map_or(Outcome::Done, Outcome::DoneBut)
            }
        })*
    };
}

commands!(
    native::AcceptPolicyResponse,
    native::PausePolicyResponse,
    native::QuarantinePolicyResponse,
    native::ReleasePolicyResponse,
    native::ResumePolicyResponse,
);

/// The policies of which a version can't be used.
fn refused(outcomes: &[native::PolicyOutcome]) -> Option<String> {
    let refused = outcomes
        .iter()
        .filter(|outcome| outcome.change() == native::PolicyChange::Refused);
    let lines: Vec<_> = refused
        .map(|outcome| format!("{} is refused: {}", outcome.name, outcome.detail))
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

impl Answered for native::ReleaseNvmlResponse {
    fn outcome(&self) -> Outcome {
        let why = match (&self.busy, &self.released_until) {
            (Some(hung), _) => format!("busy: {} hangs{}", hung.call, whom(hung)),
            (None, Some(_)) => return Outcome::Done,
            (None, None) => "an AttachNvml came in between".to_owned(),
        };
        Outcome::Refused(why)
    }
}

fn whom(hung: &native::HungNvmlCall) -> String {
    match (&*hung.device, &*hung.peer, hung.index) {
        ("", _, Some(index)) => format!(" on the GPU at index {index}"),
        ("", _, None) => String::new(),
        (device, "", _) => format!(" on {device}"),
        (device, peer, _) => format!(" on {device} and {peer}"),
    }
}

impl Answered for native::AttachNvmlResponse {
    fn outcome(&self) -> Outcome {
        if self.state() == native::NvmlState::Ready {
            return Outcome::Done;
        }
        Outcome::DoneBut(format!("NVML is not in use: {}", self.detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &impl Answered, outcome: &str, why: Option<&str>) {
        let told = answer.outcome();
        assert_eq!((told.as_str(), told.why()), (outcome, why));
    }

    #[test]
    fn an_answer_that_refuses_is_not_taken_for_done() {
        check(&(), "OK", None);
        let mut reload = native::ReloadPoliciesResponse::default();
        check(&reload, "OK", None);
        reload.outcomes = [
            native::PolicyChange::Swapped,
            native::PolicyChange::Refused,
            native::PolicyChange::Held,
        ]
        .map(|change| native::PolicyOutcome {
            name: "p".to_owned(),
            change: change.into(),
            detail: "no component".to_owned(),
            ..Default::default()
        })
        .into();
        check(&reload, "in-part", Some("p is refused: no component"));
        let pause = native::PausePolicyResponse {
            outcomes: reload.outcomes.clone(),
            ..Default::default()
        };
        check(&pause, "OK", Some("p is refused: no component"));
        reload.refused = "line 3".to_owned();
        check(&reload, "refused", Some("the whole set: line 3"));

        let mut release = native::ReleaseNvmlResponse::default();
        check(&release, "refused", Some("an AttachNvml came in between"));
        release.released_until = Some(prost_types::Timestamp::default());
        check(&release, "OK", None);
        let mut hung = native::HungNvmlCall {
            call: "nvmlX".to_owned(),
            ..Default::default()
        };
        for (device, peer, index, why) in [
            ("", "", None, "busy: nvmlX hangs"),
            ("", "", Some(2), "busy: nvmlX hangs on the GPU at index 2"),
            ("GPU-1", "", None, "busy: nvmlX hangs on GPU-1"),
            (
                "GPU-1",
                "GPU-2",
                None,
                "busy: nvmlX hangs on GPU-1 and GPU-2",
            ),
        ] {
            (hung.device, hung.peer) = (device.to_owned(), peer.to_owned());
            hung.index = index;
            let busy = native::ReleaseNvmlResponse {
                released_until: None,
                busy: Some(hung.clone()),
            };
            check(&busy, "refused", Some(why));
        }
        let mut attach = native::AttachNvmlResponse {
            state: native::NvmlState::Missing.into(),
            detail: "no library".to_owned(),
        };
        check(&attach, "OK", Some("NVML is not in use: no library"));
        attach.state = native::NvmlState::Ready.into();
        check(&attach, "OK", None);
    }
}
