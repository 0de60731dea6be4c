//! What a policy decides.

use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::ids::SignalSeq;
use device_api_core::limits::{
    CLEARS_PER_VERDICT_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, VERDICTS_PER_DECISION_MAX, WAKE_MAX,
    WAKE_MIN, WAKES_PER_POLICY_MAX,
};
use device_api_core::policy::PolicyInfo;
use device_api_core::signal::{Signal, printable};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Verdict, Wake};

use super::{Invalid, Valid, at_most, attrs, quote};
use crate::bindings::gpu::device_policy::types as wit;
use crate::telemetry::Telemetry;

/// Holds a decision against what the policy declared and the signals it was given.
pub(crate) fn decide(
    said: &wit::Decision,
    info: &PolicyInfo,
    signals: &[Signal],
    telemetry: &Telemetry,
) -> Valid<Decision> {
    at_most("verdicts", said.verdicts.len(), VERDICTS_PER_DECISION_MAX)?;
    at_most("wakes", said.wakes.len(), WAKES_PER_POLICY_MAX)?;
    let verdicts = said.verdicts.iter().enumerate();
    Ok(Decision {
        verdicts: verdicts
            .map(|(at, said)| verdict(at, said, info, signals, telemetry))
            .collect::<Valid<_>>()?,
        wakes: said.wakes.iter().map(wake).collect::<Valid<_>>()?,
        attrs: attrs("attrs", &said.attrs)?,
    })
}

fn verdict(
    at: usize,
    said: &wit::Verdict,
    info: &PolicyInfo,
    signals: &[Signal],
    telemetry: &Telemetry,
) -> Valid<Verdict> {
    let place = format!("verdicts[{at}] ({})", quote(&said.condition));
    let Some(owned) = info.owned(&said.condition) else {
        return Err(Invalid::at(
            &place,
            "the policy did not declare this condition in info.owns",
        ));
    };
    if !owned.reasons.contains(&said.reason) {
        let what = format!(
            "reason {} is not one that info.owns declared for it",
            quote(&said.reason)
        );
        return Err(Invalid::at(&place, what));
    }
    let cause = SignalSeq(said.cause);
    if !signals.iter().any(|signal| signal.seq == cause) {
        return Err(Invalid::at(
            &place,
            format!("cause {} is no signal of this call", said.cause),
        ));
    }
    let state = judgement(said.state);
    at_most(
        &format!("{place}, clears"),
        said.clears.len(),
        CLEARS_PER_VERDICT_MAX,
    )?;
    if state == Judgement::Problem && said.clears.is_empty() {
        return Err(Invalid::at(
            &place,
            "a problem needs at least one event that clears it",
        ));
    }
    let clears = said
        .clears
        .iter()
        .map(|said| clear(&place, said, telemetry))
        .collect::<Valid<_>>()?;
    // Kept by nobody yet; refused all the same where the contract refuses it.
    attrs(&place, &said.attrs)?;
    Ok(Verdict {
        condition: said.condition.clone(),
        state,
        severity: severity(said.severity),
        reason: said.reason.clone(),
        message: printable(&said.message, MESSAGE_BYTES_MAX),
        action: action(&said.action, telemetry),
        clears,
        instance: instance(&place, said.instance.as_deref())?,
        cause,
    })
}

fn judgement(said: wit::Judgement) -> Judgement {
    match said {
        wit::Judgement::Ok => Judgement::Ok,
        wit::Judgement::Problem => Judgement::Problem,
        wit::Judgement::Unknown => Judgement::Unknown,
    }
}

fn severity(said: wit::Severity) -> Severity {
    match said {
        wit::Severity::Info => Severity::Info,
        wit::Severity::Warning => Severity::Warning,
        wit::Severity::Fatal => Severity::Fatal,
    }
}

fn action(word: &str, telemetry: &Telemetry) -> Action {
    Action::from_word(word).unwrap_or_else(|| {
        telemetry.unknown_word("action", &quote(word), Action::ContactSupport.as_str());
        Action::ContactSupport
    })
}

fn clear(place: &str, said: &wit::Clear, telemetry: &Telemetry) -> Valid<Clear> {
    let Some(on) = ClearOn::from_word(&said.on) else {
        telemetry.unknown_word("clear", &quote(&said.on), ClearOn::Operator.as_str());
        return Ok(Clear::on(ClearOn::Operator));
    };
    // `after-ms` belongs to quiet (docs/clears.md); a quiet of no time would clear at once.
    if on != ClearOn::Quiet {
        return Ok(Clear::on(on));
    }
    if said.after_ms == 0 {
        return Err(Invalid::at(
            place,
            "clear \"quiet\" needs an after-ms above 0",
        ));
    }
    Ok(Clear {
        on,
        after: Duration::from_millis(said.after_ms).min(WAKE_MAX),
    })
}

fn instance(place: &str, said: Option<&str>) -> Valid<Option<String>> {
    match said {
        Some(uuid)
            if uuid.is_empty()
                || uuid.len() > NAME_BYTES_MAX
                || uuid.chars().any(char::is_control) =>
        {
            Err(Invalid::at(
                place,
                format!("instance {} is no instance's UUID", quote(uuid)),
            ))
        }
        Some(uuid) => Ok(Some(uuid.to_owned())),
        None => Ok(None),
    }
}

/// The name is the guest's own and comes back to it as it was given.
fn wake(said: &wit::Wake) -> Valid<Wake> {
    let name = &said.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let rule = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
        return Err(Invalid::at(
            "wakes",
            format!("{} is no name for a timer: {rule}", quote(name)),
        ));
    }
    let after = match said.after_ms {
        0 => Duration::ZERO,
        ms => Duration::from_millis(ms).clamp(WAKE_MIN, WAKE_MAX),
    };
    Ok(Wake {
        name: name.clone(),
        after,
    })
}

#[cfg(test)]
mod tests;
