//! The store's words as the upstream dialect shows them. (Its writes are read in [`super::write`].)

use device_api_core::condition::Condition;
use device_api_core::gpu::Gpu;
use device_api_proto::{Encoded, upstream as proto};
use prost::Message as _;

use crate::fields::timestamp;

/// This dialect's place among the forms in which a GPU is kept encoded.
const SLOT: usize = 1;

/// A GPU as it goes out: encoded by the first reader of it, and never again.
pub(super) fn gpu(gpu: &Gpu) -> Encoded {
    gpu.encoded
        .get_or_make(SLOT, || message(gpu).encode_to_vec().into())
        .into()
}

fn message(gpu: &Gpu) -> proto::Gpu {
    proto::Gpu {
        metadata: Some(proto::ObjectMeta {
            name: gpu.key.name.to_string(),
            resource_version: gpu.version.to_string(),
            namespace: gpu.key.namespace.to_string(),
            uid: gpu.uid.to_string(),
            generation: i64::try_from(gpu.generation).unwrap_or(i64::MAX),
            creation_timestamp: timestamp(gpu.created),
        }),
        spec: Some(proto::GpuSpec {
            uuid: gpu.uuid.to_string(),
        }),
        status: Some(proto::GpuStatus {
            conditions: gpu.published().map(condition).collect(),
            recommended_action: gpu.derived.action.as_str().to_owned(),
        }),
    }
}

fn condition(condition: Condition) -> proto::Condition {
    proto::Condition {
        r#type: condition.type_.to_string(),
        status: condition.status().as_str().to_owned(),
        last_transition_time: timestamp(condition.transition),
        reason: condition.reason,
        message: condition.message,
    }
}
