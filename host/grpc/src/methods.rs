//! The methods there are, by their paths: what a call is named in metrics, before anyone looked at it.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::observe::Method;

/// A call of what there is not. One name for all, or a client would choose our labels.
const UNKNOWN: Known = Known {
    method: Method {
        service: "unknown",
        name: "unknown",
    },
    streams: false,
};

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) method: Method,
    /// It is open as long as its client likes.
    pub(crate) streams: bool,
}

/// All methods, by path.
#[derive(Debug)]
pub(crate) struct Methods(HashMap<&'static str, Known>);

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
        self.0.get(path).copied().unwrap_or(UNKNOWN)
    }

    fn read() -> Result<Self, prost::DecodeError> {
        let mut methods = HashMap::new();
        for encoded in [
            device_api_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in FileDescriptorSet::decode(encoded)?.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    // Once in the life of the process, for names that observers keep as labels.
                    let service_name: &'static str = service_name.leak();
                    for method in &service.method {
                        let path: &'static str =
                            format!("/{service_name}/{}", method.name()).leak();
                        let name = path.rsplit('/').next().unwrap_or_default();
                        let known = Known {
                            method: Method {
                                service: service_name,
                                name,
                            },
                            streams: method.server_streaming(),
                        };
                        methods.insert(path, known);
                    }
                }
            }
        }
        Ok(Self(methods))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_paths_and_all_others_are_one() {
        let methods = Methods::get().expect("read");
        let of = |path: &str| {
            let known = methods.of(path);
            (known.method.service, known.method.name, known.streams)
        };
        assert_eq!(
            of("/nvidia.device.v1alpha1.GpuService/WatchGpus"),
            ("nvidia.device.v1alpha1.GpuService", "WatchGpus", true)
        );
        assert_eq!(
            of("/nvidia.nvsentinel.v1alpha1.GpuService/GetGpu"),
            ("nvidia.nvsentinel.v1alpha1.GpuService", "GetGpu", false)
        );
        assert_eq!(
            of("/grpc.health.v1.Health/Check"),
            ("grpc.health.v1.Health", "Check", false)
        );
        assert!(of("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").2);
        for path in ["/a.B/C", "/", "", "/nvidia.device.v1alpha1.GpuService/"] {
            assert_eq!(of(path), ("unknown", "unknown", false), "{path}");
        }
    }
}
