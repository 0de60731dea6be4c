//! What a write is about, for the audit log. A lease's number is a secret, and stands in no log.

use device_api_proto::{native, upstream};

/// A request that changes something.
pub(crate) trait Subject {
    /// The name of its object (or provider), as the client wrote it.
    fn subject(&self) -> &str;
}

macro_rules! subjects {
    ($($request:ty: |$it:ident| $subject:expr;)*) => {
        $(impl Subject for $request {
            fn subject(&self) -> &str {
                let $it = self;
                $subject
            }
        })*
    };
}

subjects! {
    native::CreateGpuRequest: |it| it.gpu.as_ref().map_or("", |gpu| &gpu.name);
    native::UpdateGpuRequest: |it| it.gpu.as_ref().map_or("", |gpu| &gpu.name);
    native::UpdateGpuStatusRequest: |it| &it.name;
    native::DeleteGpuRequest: |it| &it.name;
    native::RegisterProviderRequest: |it| &it.name;
    native::HeartbeatRequest: |_it| "";
    native::RegisterGpuRequest: |it| &it.name;
    native::UnregisterGpuRequest: |it| &it.name;
    native::ProviderUpdateGpuStatusRequest: |it| &it.name;
    native::UpdateGpuConditionRequest: |it| &it.name;
    native::ForgetProviderRequest: |it| &it.name;
    upstream::CreateGpuRequest: |it| upstream_name(it.gpu.as_ref());
    upstream::UpdateGpuRequest: |it| upstream_name(it.gpu.as_ref());
    upstream::UpdateGpuStatusRequest: |it| upstream_name(it.gpu.as_ref());
    upstream::DeleteGpuRequest: |it| &it.name;
}

fn upstream_name(gpu: Option<&upstream::Gpu>) -> &str {
    let metadata = gpu.and_then(|gpu| gpu.metadata.as_ref());
    metadata.map_or("", |metadata| &metadata.name)
}
