//! MIG instances (design N9): devices whose health follows from their GPU's.
//!
//! What policies and the host say, of a GPU and of its instances, lies in the GPU's record: they judge the GPU as
//! one. What providers say of an instance lies in its own. An object shows:
//!
//! | object | shows |
//! | --- | --- |
//! | a GPU | what is said of the whole GPU |
//! | an instance | that, what is said of the instance, and of a type that both have the worse |
//!
//! So an instance is never better than its GPU, in one write with it, and an instance that was destroyed
//! leaves nothing behind.

use std::sync::Arc;

use device_api_core::condition::{self, Condition};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::verdict::{Judgement, Severity};

/// What is known of a device, and what is said of it.
pub(crate) type Known<'a> = (&'a DeviceInfo, &'a Arc<[Condition]>);

/// What the objects of a device show; `known` looks up a record.
pub(crate) fn shown<'a>(
    known: impl Fn(&DeviceUuid) -> Option<Known<'a>>,
    uuid: &DeviceUuid,
) -> Arc<[Condition]> {
    let Some((info, own)) = known(uuid) else {
        return Arc::default();
    };
    let Some(parent) = &info.parent else {
        if own.iter().all(|c| c.instance.is_none()) {
            return own.clone();
        }
        let whole = own.iter().filter(|c| c.instance.is_none());
        return whole.cloned().collect();
    };
    let of_gpu = known(&parent.gpu).map(|(_, conditions)| conditions);
    let of_gpu = of_gpu.into_iter().flat_map(|conditions| conditions.iter());
    let of_gpu = of_gpu.filter(|c| c.instance.as_ref().is_none_or(|on| on == uuid));
    let mut all: Vec<Condition> = own.iter().chain(of_gpu).cloned().collect();
    // Of a type the worse first; of those that are alike the instance's own.
    all.sort_by(|a, b| {
        let by_type = a.type_.cmp(&b.type_);
        let by_weight = weight(b).cmp(&weight(a));
        by_type
            .then(by_weight)
            .then(b.instance.is_some().cmp(&a.instance.is_some()))
    });
    all.dedup_by(|later, first| later.type_ == first.type_);
    for condition in &mut all {
        condition.instance = None;
    }
    condition::sort(&mut all);
    all.into()
}

/// What a condition does to health, the worst greatest, and what it asks for: as `health::derive` has it.
fn weight(condition: &Condition) -> (u8, device_api_core::action::Action, bool) {
    let health = match (condition.counted, condition.state, condition.severity) {
        (true, Judgement::Problem, Severity::Fatal) => 4,
        (true, Judgement::Unknown, _) => 3,
        (true, Judgement::Problem, Severity::Warning) => 2,
        (true, Judgement::Problem, Severity::Info) => 1,
        (true, Judgement::Ok, _) | (false, _, _) => 0,
    };
    (health, condition.action, condition.is_problem())
}
