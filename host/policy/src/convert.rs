//! From the house's words to the contract's. The way back is in `validate`: what comes from a guest
//! is not merely converted.

use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::policy::{Evaluation, Standing};
use device_api_core::signal::{Attr, Signal, Value};
use device_api_core::verdict::Judgement;

use crate::bindings::gpu::device_policy::types as wit;

pub(crate) fn device(evaluation: &Evaluation) -> wit::Device {
    let info = &evaluation.device;
    let mut attrs = device_attrs(info);
    attrs.extend(evaluation.attrs.iter().map(attr));
    wit::Device {
        uuid: info.uuid.to_string(),
        pci: info.pci.map(|pci| pci.to_string()).unwrap_or_default(),
        architecture: info.architecture.clone(),
        driver: info.driver_version.clone(),
        mig: info.mig.iter().map(instance).collect(),
        standing: evaluation.standing.iter().map(standing).collect(),
        attrs,
    }
}

/// What the device does not tell is absent, never zero or empty.
fn device_attrs(info: &DeviceInfo) -> Vec<wit::Attr> {
    let text = |key: &str, value: &str| {
        let value = wit::Value::Text(value.to_owned());
        wit::Attr {
            key: key.to_owned(),
            value,
        }
    };
    let mut attrs = Vec::new();
    for (key, value) in [
        ("product", &info.product),
        ("serial", &info.serial),
        ("cuda", &info.cuda_version),
    ] {
        if !value.is_empty() {
            attrs.push(text(key, value));
        }
    }
    let memory = info
        .memory_bytes
        .and_then(|bytes| i64::try_from(bytes).ok());
    for (key, value) in [
        ("index", info.index.map(i64::from)),
        ("memory-bytes", memory),
    ] {
        if let Some(value) = value {
            attrs.push(wit::Attr {
                key: key.to_owned(),
                value: wit::Value::Int(value),
            });
        }
    }
    attrs
}

fn instance(mig: &MigInstance) -> wit::Instance {
    wit::Instance {
        uuid: mig.uuid.to_string(),
        gpu_instance: mig.gpu_instance,
        compute_instance: mig.compute_instance,
        profile: mig.profile.clone(),
    }
}

fn standing(standing: &Standing) -> wit::Standing {
    wit::Standing {
        condition: standing.condition.clone(),
        state: match standing.state {
            Judgement::Ok => wit::Judgement::Ok,
            Judgement::Problem => wit::Judgement::Problem,
            Judgement::Unknown => wit::Judgement::Unknown,
        },
        reason: standing.reason.clone(),
        since_ms: standing.since.unix_ms(),
        instance: standing.instance.clone(),
        incident: standing.incident.0,
    }
}

pub(crate) fn signal(signal: &Signal) -> wit::Signal {
    wit::Signal {
        seq: signal.seq.0,
        kind: signal.kind.as_str().to_owned(),
        code: signal.code,
        at_ms: signal.observed_at.unix_ms(),
        repeats: signal.repeats,
        incident: signal.incident.0,
        root: signal.root.map(|root| root.0),
        drill: signal.drill,
        instance: signal.instance.clone(),
        sources: signal.sources.iter().map(ToString::to_string).collect(),
        evidence: signal.evidence.clone(),
        attrs: signal.attrs.iter().map(attr).collect(),
    }
}

fn attr(attr: &Attr) -> wit::Attr {
    wit::Attr {
        key: attr.key.clone(),
        value: value(&attr.value),
    }
}

pub(crate) fn value(value: &Value) -> wit::Value {
    match value {
        Value::Flag(flag) => wit::Value::Flag(*flag),
        Value::Int(int) => wit::Value::Int(*int),
        Value::Real(real) => wit::Value::Real(*real),
        Value::Text(text) => wit::Value::Text(text.clone()),
        Value::Bytes(bytes) => wit::Value::Bytes(bytes.clone()),
    }
}
