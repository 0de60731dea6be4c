//! The methods there are, by their paths: what a call is named in metrics, who may make it and what it may
//! bring, before anyone looked at it.

use std::collections::HashMap;
use std::sync::OnceLock;

use device_api_proto::native::server::policy_service_server::SERVICE_NAME as POLICY_SERVICE;
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};

use crate::observe::Method;
use crate::shape::{ShapeId, Shapes};

/// A call of what there is not. One name for all, or a client would choose our labels.
const UNKNOWN: Known = Known {
    method: Method {
        service: "unknown",
        name: "unknown",
    },
    does: Does::Nothing,
    request: None,
};

/// How the names of methods begin that change nothing. Any other changes something: a new one is taken
/// for a write until it is listed here.
const READS: [&str; 3] = ["Get", "List", "Watch"];

/// What a method is to the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// There is no such method.
    Nothing,
    Read,
    Write,
    /// It is open as long as its client likes.
    Watch,
    /// A stream of health: open as long as its client likes, and there are few.
    HealthWatch,
    /// The client sends a stream, too.
    Reflection,
}

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) method: Method,
    pub(crate) does: Does,
    /// `None`: of no message of ours.
    pub(crate) request: Option<ShapeId>,
}

impl Known {
    /// A command on policies: it may have to compile some first, and goes on when nobody waits any more.
    pub(crate) fn is_command(self) -> bool {
        self.does == Does::Write && self.method.service == POLICY_SERVICE
    }

    /// It is open as long as its client likes.
    pub(crate) fn lasts(self) -> bool {
        matches!(self.does, Does::Watch | Does::HealthWatch)
    }
}

/// All methods, by path.
#[derive(Debug)]
pub(crate) struct Methods {
    known: HashMap<&'static str, Known>,
    shapes: Shapes,
}

impl Methods {
    /// Those of our services, health and reflection.
    ///
    /// # Errors
    /// A descriptor set that this binary was built with can't be read.
    pub(crate) fn get() -> Result<&'static Self, prost::DecodeError> {
        static METHODS: OnceLock<Methods> = OnceLock::new();
        if let Some(methods) = METHODS.get() {
            return Ok(methods);
        }
        let methods = Self::read()?;
        Ok(METHODS.get_or_init(|| methods))
    }

    pub(crate) fn of(&self, path: &str) -> Known {
        self.known.get(path).copied().unwrap_or(UNKNOWN)
    }

    /// Each as metrics name it, the one for what there is not among them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Method> {
        let known = self.known.values().chain([&UNKNOWN]);
        known.map(|known| known.method)
    }

    /// How many elements of repeated fields a request has.
    pub(crate) fn elements(&self, known: Known, request: &[u8]) -> usize {
        known
            .request
            .map_or(0, |shape| self.shapes.elements(shape, request))
    }

    fn read() -> Result<Self, prost::DecodeError> {
        let mut known = HashMap::new();
        let mut shapes = Shapes::default();
        for (encoded, ours) in [
            (device_api_proto::FILE_DESCRIPTOR_SET, true),
            (tonic_health::pb::FILE_DESCRIPTOR_SET, false),
            (tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET, false),
            (tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET, false),
        ] {
            let set = FileDescriptorSet::decode(encoded)?;
            let messages = shapes.add(&set);
            for file in &set.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    // Once in the life of the process, for names that observers keep as labels.
                    let service_name: &'static str = service_name.leak();
                    for method in &service.method {
                        let path: &'static str =
                            format!("/{service_name}/{}", method.name()).leak();
                        let method_known = Known {
                            method: Method {
                                service: service_name,
                                name: path.rsplit('/').next().unwrap_or_default(),
                            },
                            does: does(method, ours),
                            request: messages.get(method.input_type()).copied(),
                        };
                        known.insert(path, method_known);
                    }
                }
            }
        }
        Ok(Self { known, shapes })
    }
}

fn does(method: &MethodDescriptorProto, ours: bool) -> Does {
    let reads = READS.iter().any(|reads| method.name().starts_with(reads));
    match (method.client_streaming(), method.server_streaming()) {
        (true, _) => Does::Reflection,
        (false, true) if ours => Does::Watch,
        (false, true) => Does::HealthWatch,
        (false, false) if ours && !reads => Does::Write,
        (false, false) => Does::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_paths_and_all_others_are_one() {
        let methods = Methods::get().expect("read");
        #[track_caller]
        fn check(path: &str, service: &str, name: &str, does: Does) {
            let known = Methods::get().expect("read").of(path);
            let got = (known.method.service, known.method.name, known.does);
            assert_eq!(got, (service, name, does), "{path}");
        }
        let native = "nvidia.device.v1alpha1.GpuService";
        let upstream = "nvidia.nvsentinel.v1alpha1.GpuService";
        let providers = "nvidia.device.v1alpha1.ProviderService";
        let policies = "nvidia.device.v1alpha1.PolicyService";
        let incidents = "nvidia.device.v1alpha1.IncidentService";
        let nvml = "nvidia.device.v1alpha1.NvmlService";
        let daemon = "nvidia.device.v1alpha1.DaemonService";
        for (service, name, does) in [
            (native, "WatchGpus", Does::Watch),
            (native, "UpdateGpuStatus", Does::Write),
            (upstream, "GetGpu", Does::Read),
            (upstream, "DeleteGpu", Does::Write),
            (providers, "ListProviders", Does::Read),
            (providers, "Heartbeat", Does::Write),
            (policies, "ListPolicies", Does::Read),
            (policies, "GetPolicy", Does::Read),
            (policies, "ReloadPolicies", Does::Write),
            (incidents, "ListIncidents", Does::Read),
            (incidents, "ClearCondition", Does::Write),
            (incidents, "ReportReset", Does::Write),
            (nvml, "GetNvmlStatus", Does::Read),
            (nvml, "ReleaseNvml", Does::Write),
            (daemon, "GetDaemonStatus", Does::Read),
            (daemon, "SetLogFilter", Does::Write),
            ("grpc.health.v1.Health", "Check", Does::Read),
            ("grpc.health.v1.Health", "Watch", Does::HealthWatch),
            (
                "grpc.reflection.v1.ServerReflection",
                "ServerReflectionInfo",
                Does::Reflection,
            ),
        ] {
            check(&format!("/{service}/{name}"), service, name, does);
        }
        for path in ["/a.B/C", "/", "", "/nvidia.device.v1alpha1.GpuService/"] {
            check(path, "unknown", "unknown", Does::Nothing);
        }
        let all = methods.known.values();
        assert!(all.clone().all(|known| known.request.is_some()));
        let writes = all.filter(|known| known.does == Does::Write).count();
        assert_eq!(writes, 27, "each of them asks who is calling");
        let all = methods.known.values();
        let commands = all.filter(|known| known.is_command()).count();
        assert_eq!(
            commands, 6,
            "reload, quarantine, release, accept, pause, resume"
        );
    }
}
