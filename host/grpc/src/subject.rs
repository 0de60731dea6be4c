//! What a write is about, for the audit log. A lease's number is a secret, and stands in no log.

use std::time::Duration;

use device_api_proto::{native, upstream};

use crate::fields::span;

/// A request that changes something.
pub(crate) trait Subject {
    /// The name of its object (provider, policy), as the client wrote it.
    fn subject(&self) -> &str;

    /// Why, where the client says so.
    fn because(&self) -> Option<&str> {
        None
    }

    /// Digest of the version that it is about, where the client names one.
    fn digest(&self) -> Option<&str> {
        None
    }

    /// Type of the condition that it is about, where it is about one.
    fn condition(&self) -> Option<&str> {
        None
    }

    /// For how long, where the client says so; absent where it is no time.
    fn ttl(&self) -> Option<Duration> {
        None
    }
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
    native::ReloadPoliciesRequest: |_it| "";
    native::ResumePolicyRequest: |it| &it.name;
    native::AttachNvmlRequest: |_it| "";
    native::ResetLogFilterRequest: |_it| "";
    upstream::CreateGpuRequest: |it| upstream_name(it.gpu.as_ref());
    upstream::UpdateGpuRequest: |it| upstream_name(it.gpu.as_ref());
    upstream::UpdateGpuStatusRequest: |it| upstream_name(it.gpu.as_ref());
    upstream::DeleteGpuRequest: |it| &it.name;
}

impl Subject for native::QuarantinePolicyRequest {
    fn subject(&self) -> &str {
        &self.name
    }

    fn because(&self) -> Option<&str> {
        Some(&self.reason)
    }

    fn digest(&self) -> Option<&str> {
        Some(&*self.digest).filter(|digest| !digest.is_empty())
    }
}

impl Subject for native::PausePolicyRequest {
    fn subject(&self) -> &str {
        &self.name
    }

    fn because(&self) -> Option<&str> {
        Some(&self.reason)
    }
}

impl Subject for native::ReleasePolicyRequest {
    fn subject(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> Option<&str> {
        Some(&*self.digest).filter(|digest| !digest.is_empty())
    }
}

impl Subject for native::AcceptPolicyRequest {
    fn subject(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> Option<&str> {
        Some(&self.digest)
    }
}

impl Subject for native::ClearConditionRequest {
    fn subject(&self) -> &str {
        &self.name
    }

    fn because(&self) -> Option<&str> {
        Some(&self.reason)
    }

    fn condition(&self) -> Option<&str> {
        Some(&self.condition_type)
    }
}

impl Subject for native::ReportResetRequest {
    fn subject(&self) -> &str {
        &self.name
    }

    fn because(&self) -> Option<&str> {
        Some(&self.reason)
    }
}

impl Subject for native::ReleaseNvmlRequest {
    fn subject(&self) -> &'static str {
        ""
    }

    fn because(&self) -> Option<&str> {
        Some(match self.purpose() {
            native::NvmlReleasePurpose::Reset => "reset",
            native::NvmlReleasePurpose::Upgrade => "upgrade",
            native::NvmlReleasePurpose::Unspecified => "",
        })
    }

    fn ttl(&self) -> Option<Duration> {
        self.ttl.and_then(span)
    }
}

impl Subject for native::SetLogFilterRequest {
    fn subject(&self) -> &str {
        &self.filter
    }

    fn ttl(&self) -> Option<Duration> {
        self.ttl.and_then(span)
    }
}

fn upstream_name(gpu: Option<&upstream::Gpu>) -> &str {
    let metadata = gpu.and_then(|gpu| gpu.metadata.as_ref());
    metadata.map_or("", |metadata| &metadata.name)
}
