//! The two dialects, as far as they are measured: paths, requests, and what an event is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use device_api_proto::{native, upstream};
use http::uri::PathAndQuery;
use prost::Message;
use prost::bytes::Bytes;

/// What the wire looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Native,
    Upstream,
}

/// A method of the GPU service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    List,
    Watch,
    Create,
    UpdateStatus,
    Delete,
}

impl Method {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GetGpu",
            Self::List => "ListGpus",
            Self::Watch => "WatchGpus",
            Self::Create => "CreateGpu",
            Self::UpdateStatus => "UpdateGpuStatus",
            Self::Delete => "DeleteGpu",
        }
    }
}

/// Name of a GPU and its UUID: the reference server of the upstream dialect wants them alike.
pub(crate) fn gpu_name(index: usize) -> String {
    format!("GPU-be9c0000-0000-4000-8000-{index:012x}")
}

/// What a provider says of a GPU in good health, besides the one that is toggled.
const CONDITIONS: [(&str, &str, &str); 3] = [
    (
        "BenchNvlinkHealthy",
        "AllLinksUp",
        "18 of 18 NVLink links are up at 26.562 GB/s",
    ),
    (
        "BenchPcieHealthy",
        "FullWidth",
        "PCIe link runs at generation 5, width x16, no replays in the last hour",
    ),
    (
        "BenchThermalHealthy",
        "BelowSlowdown",
        "GPU at 41 C, memory at 47 C; slowdown begins at 87 C",
    ),
];

/// The condition that a write toggles, so that every write changes something.
const TOGGLED: &str = "BenchLoadHealthy";

impl Dialect {
    pub(crate) fn path(self, method: Method) -> PathAndQuery {
        match (self, method) {
            (Self::Native, Method::Get) => path("/nvidia.device.v1alpha1.GpuService/GetGpu"),
            (Self::Native, Method::List) => path("/nvidia.device.v1alpha1.GpuService/ListGpus"),
            (Self::Native, Method::Watch) => path("/nvidia.device.v1alpha1.GpuService/WatchGpus"),
            (Self::Native, Method::Create) => path("/nvidia.device.v1alpha1.GpuService/CreateGpu"),
            (Self::Native, Method::UpdateStatus) => {
                path("/nvidia.device.v1alpha1.GpuService/UpdateGpuStatus")
            }
            (Self::Native, Method::Delete) => path("/nvidia.device.v1alpha1.GpuService/DeleteGpu"),
            (Self::Upstream, Method::Get) => path("/nvidia.nvsentinel.v1alpha1.GpuService/GetGpu"),
            (Self::Upstream, Method::List) => {
                path("/nvidia.nvsentinel.v1alpha1.GpuService/ListGpus")
            }
            (Self::Upstream, Method::Watch) => {
                path("/nvidia.nvsentinel.v1alpha1.GpuService/WatchGpus")
            }
            (Self::Upstream, Method::Create) => {
                path("/nvidia.nvsentinel.v1alpha1.GpuService/CreateGpu")
            }
            (Self::Upstream, Method::UpdateStatus) => {
                path("/nvidia.nvsentinel.v1alpha1.GpuService/UpdateGpuStatus")
            }
            (Self::Upstream, Method::Delete) => {
                path("/nvidia.nvsentinel.v1alpha1.GpuService/DeleteGpu")
            }
        }
    }

    pub(crate) fn get(self, gpu: usize) -> Bytes {
        let name = gpu_name(gpu);
        match self {
            Self::Native => bytes(&native::GetGpuRequest {
                name,
                ..Default::default()
            }),
            Self::Upstream => bytes(&upstream::GetGpuRequest {
                name,
                ..Default::default()
            }),
        }
    }

    /// All namespaces.
    pub(crate) fn list(self) -> Bytes {
        match self {
            Self::Native => bytes(&native::ListGpusRequest::default()),
            Self::Upstream => bytes(&upstream::ListGpusRequest::default()),
        }
    }

    /// All namespaces, from the current state.
    pub(crate) fn watch(self) -> Bytes {
        match self {
            Self::Native => bytes(&native::WatchGpusRequest::default()),
            Self::Upstream => bytes(&upstream::WatchGpusRequest::default()),
        }
    }

    pub(crate) fn create(self, gpu: usize) -> Bytes {
        let name = gpu_name(gpu);
        match self {
            Self::Native => bytes(&native::CreateGpuRequest {
                gpu: Some(native_gpu(name, gpu)),
            }),
            Self::Upstream => bytes(&upstream::CreateGpuRequest {
                gpu: Some(upstream::Gpu {
                    spec: Some(upstream::GpuSpec { uuid: name.clone() }),
                    metadata: Some(metadata(name)),
                    status: None,
                }),
                opts: None,
            }),
        }
    }

    /// Two writes that, sent in turn, change the GPU each time, the first included: they name a
    /// writer that no other call of this names.
    pub(crate) fn toggles(self, gpu: usize) -> Vec<Bytes> {
        static WRITERS: AtomicU32 = AtomicU32::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        [false, true]
            .map(|state| self.status(gpu, writer, state))
            .into()
    }

    fn status(self, gpu: usize, writer: u32, state: bool) -> Bytes {
        let name = gpu_name(gpu);
        match self {
            Self::Native => bytes(&native::UpdateGpuStatusRequest {
                name,
                status: Some(native::GpuStatus {
                    conditions: native_conditions(writer, state),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            Self::Upstream => bytes(&upstream::UpdateGpuStatusRequest {
                gpu: Some(upstream::Gpu {
                    metadata: Some(metadata(name)),
                    status: Some(upstream::GpuStatus {
                        conditions: upstream_conditions(writer, state),
                        recommended_action: "NONE".to_owned(),
                    }),
                    spec: None,
                }),
                opts: None,
            }),
        }
    }

    pub(crate) fn delete(self, gpu: usize) -> Bytes {
        let name = gpu_name(gpu);
        match self {
            Self::Native => bytes(&native::DeleteGpuRequest {
                name,
                ..Default::default()
            }),
            Self::Upstream => bytes(&upstream::DeleteGpuRequest {
                name,
                ..Default::default()
            }),
        }
    }

    /// Version of the GPU that an UpdateGpuStatus answered with.
    ///
    /// # Errors
    /// It is no GPU.
    pub(crate) fn written_version(self, answer: Bytes) -> Result<u64> {
        match self {
            Self::Native => version(native::Gpu::decode(answer)?.resource_version),
            Self::Upstream => {
                let metadata = upstream::Gpu::decode(answer)?.metadata;
                Ok(metadata.context("no metadata")?.resource_version.parse()?)
            }
        }
    }

    /// Version of the GPU in an event.
    ///
    /// # Errors
    /// It is no event.
    pub(crate) fn event_version(self, event: Bytes) -> Result<u64> {
        match self {
            Self::Native => {
                let gpu = native::WatchGpusResponse::decode(event)?.gpu;
                version(gpu.context("an event without a GPU")?.resource_version)
            }
            Self::Upstream => {
                let gpu = upstream::WatchGpusResponse::decode(event)?.object;
                let metadata = gpu.context("an event without a GPU")?.metadata;
                Ok(metadata.context("no metadata")?.resource_version.parse()?)
            }
        }
    }

    /// Whether an event is a `MODIFIED`, without decoding the GPU: this runs for each event of each
    /// watcher while the clock runs.
    pub(crate) fn is_modified(self, event: &[u8]) -> bool {
        let modified: &[u8] = match self {
            Self::Native => &[native::EventType::Modified as u8],
            Self::Upstream => b"MODIFIED",
        };
        first_field(event).is_some_and(|value| value == modified)
    }
}

/// What field 1 holds where it stands first, as every encoder in use writes it: a varint of one byte, or
/// a short string.
fn first_field(message: &[u8]) -> Option<&[u8]> {
    const VARINT: u8 = 1 << 3;
    const STRING: u8 = 1 << 3 | 2;
    match message {
        [VARINT, rest @ ..] => rest.get(..1),
        [STRING, length, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    }
}

fn native_gpu(name: String, index: usize) -> native::Gpu {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let labels = [
        ("example.com/rack", "r17"),
        ("example.com/pool", "training"),
    ];
    native::Gpu {
        spec: Some(native::GpuSpec {
            uuid: name.clone(),
            product: "NVIDIA H100 80GB HBM3".to_owned(),
            architecture: "Hopper".to_owned(),
            memory_bytes: Some(81_559 * 1024 * 1024),
            pci_address: format!("0000:{:02x}:00.0", index % 256),
            index: Some(number),
            minor: Some(number),
            driver_version: "580.95.05".to_owned(),
            cuda_version: "13.0".to_owned(),
            serial: format!("16532230{index:05}"),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Default::default()
        }),
        name,
        ..Default::default()
    }
}

fn native_conditions(writer: u32, state: bool) -> Vec<native::Condition> {
    conditions(writer, state)
        .map(|(type_, healthy, reason, message)| native::Condition {
            r#type: type_.to_owned(),
            status: if healthy {
                native::ConditionStatus::True.into()
            } else {
                native::ConditionStatus::False.into()
            },
            reason: reason.to_owned(),
            message,
            polarity: native::Polarity::TrueIsHealthy.into(),
            severity: native::Severity::Warning.into(),
            ..Default::default()
        })
        .collect()
}

fn upstream_conditions(writer: u32, state: bool) -> Vec<upstream::Condition> {
    conditions(writer, state)
        .map(|(type_, healthy, reason, message)| upstream::Condition {
            r#type: type_.to_owned(),
            status: if healthy { "True" } else { "False" }.to_owned(),
            // Not every server sets it.
            last_transition_time: Some(SystemTime::now().into()),
            reason: reason.to_owned(),
            message,
        })
        .collect()
}

/// Type, whether healthy, reason and message. Both states are as many bytes.
fn conditions(
    writer: u32,
    state: bool,
) -> impl Iterator<Item = (&'static str, bool, &'static str, String)> {
    let (reason, load) = if state {
        ("LoadIsModerate", 17)
    } else {
        ("LoadTooHighNow", 98)
    };
    let toggled = format!("load of the last minute: {load} % (writer {writer:06})");
    CONDITIONS
        .into_iter()
        .map(|(type_, reason, message)| (type_, true, reason, message.to_owned()))
        .chain([(TOGGLED, state, reason, toggled)])
}

fn metadata(name: String) -> upstream::ObjectMeta {
    upstream::ObjectMeta {
        name,
        ..Default::default()
    }
}

fn version(version: i64) -> Result<u64> {
    u64::try_from(version).with_context(|| format!("a negative version: {version}"))
}

fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn path(text: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modified_event_is_recognised_in_both_dialects() {
        let native = |type_: native::EventType| {
            bytes(&native::WatchGpusResponse {
                r#type: type_.into(),
                gpu: Some(native_gpu(gpu_name(0), 0)),
                ..Default::default()
            })
        };
        assert!(Dialect::Native.is_modified(&native(native::EventType::Modified)));
        assert!(!Dialect::Native.is_modified(&native(native::EventType::Added)));
        let upstream = |type_: &str| {
            bytes(&upstream::WatchGpusResponse {
                r#type: type_.to_owned(),
                object: Some(upstream::Gpu::default()),
            })
        };
        assert!(Dialect::Upstream.is_modified(&upstream("MODIFIED")));
        assert!(!Dialect::Upstream.is_modified(&upstream("ADDED")));
        assert!(!Dialect::Upstream.is_modified(&[]));
    }

    #[test]
    fn every_toggle_changes_the_state_and_not_the_size() {
        for dialect in [Dialect::Native, Dialect::Upstream] {
            let (one, other) = (dialect.toggles(3), dialect.toggles(3));
            assert_ne!(one[0], one[1]);
            assert!(one[0].len().abs_diff(one[1].len()) <= 1);
            assert!(!one.contains(&other[0]));
        }
    }
}
