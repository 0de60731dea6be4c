use device_api_cache::{Cache, Config, Unobserved};
use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, GONE};
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{Miss, Reading, Samples, Value};
use device_api_core::verdict::Judgement;

use super::super::tests::{check, rendered};
use super::*;
use crate::clock::SystemClock;

/// A node of GPUs in memory, and metrics that tell of them.
struct Node {
    metrics: Metrics,
    cache: Arc<Cache>,
    last_read: Arc<LastRead>,
}

impl Node {
    fn new() -> Self {
        let metrics = Metrics::new().expect("metrics");
        let (cache, last_read) = watched(&metrics);
        Self {
            metrics,
            cache,
            last_read,
        }
    }

    fn found(&self, uuid: &str, product: &str) {
        let device = DeviceInfo {
            product: product.to_owned(),
            ..DeviceInfo::bare(DeviceUuid::new(uuid))
        };
        self.cache.upsert_device(device).expect("room");
    }

    fn told(&self, of: &str) -> Vec<String> {
        let text = rendered(&self.metrics);
        let lines = text.lines().filter(|line| line.contains(of));
        lines.map(str::to_owned).collect()
    }
}

fn watched(metrics: &Metrics) -> (Arc<Cache>, Arc<LastRead>) {
    let observer = Arc::new(Unobserved);
    let cache = Cache::in_memory(Config::default(), Arc::new(SystemClock), observer);
    let (cache, last_read) = (Arc::new(cache), Arc::new(LastRead::default()));
    let told = cache.clone();
    metrics
        .watch_gpus(move || told.all_now(), last_read.clone())
        .expect("the first time");
    (cache, last_read)
}

/// A GPU and one of its MIG instances, and 1 for each reading that there is.
pub(in super::super) fn exercise(metrics: &Metrics) {
    let (cache, last_read) = watched(metrics);
    let uuid = DeviceUuid::new("GPU-x");
    let mig = MigInstance {
        uuid: DeviceUuid::new("MIG-x"),
        gpu_instance: 1,
        compute_instance: None,
        profile: "1g.10gb".to_owned(),
        memory_bytes: None,
    };
    let device = DeviceInfo {
        mig: vec![mig],
        ..DeviceInfo::bare(uuid.clone())
    };
    cache.upsert_device(device).expect("room");
    let mut samples = Samples::default();
    for key in readings::keys().filter(|key| *key != "nvml.state") {
        samples.extend([read(key, 1)]);
    }
    samples.extend([read("nvml.state", 0)]);
    last_read.keep(&uuid, &Arc::new(samples));
}

fn read(key: &str, value: i64) -> (String, Result<Reading, Miss>) {
    let (value, at) = (Value::Int(value), WallTime::from_ms(1));
    (key.to_owned(), Ok(Reading { value, at }))
}

#[test]
fn one_state_of_each_gpu_is_1() {
    let node = Node::new();
    node.found("GPU-a", "H100");
    node.found("GPU-b", "H100");
    let lines = node.told("_gpu_health{");
    assert_eq!(lines.len(), 2 * Health::ALL.len());
    for uuid in ["GPU-a", "GPU-b"] {
        let line = format!(
            "device_api_server_gpu_health{{product=\"H100\",state=\"Unknown\",uuid=\"{uuid}\"}} 1"
        );
        assert!(lines.contains(&line), "{lines:#?}");
    }
    assert_eq!(lines.iter().filter(|line| line.ends_with(" 1")).count(), 2);
    check(
        &rendered(&node.metrics),
        "device_api_server_gpu_recommended_action{action=\"NONE\",product=\"H100\",uuid=\"GPU-a\"} 1",
    );
}

#[test]
fn a_mig_instance_is_no_gpu() {
    let metrics = Metrics::new().expect("metrics");
    exercise(&metrics);
    let text = rendered(&metrics);
    let of = |metric: &str| {
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.filter(|line| line.contains("uuid=\"MIG-x\"")).count()
    };
    assert_eq!(of("device_api_server_gpu_"), 0);
    assert_eq!(
        of("device_api_server_mig_instance_health"),
        Health::ALL.len()
    );
}

#[test]
fn readings_are_those_of_gpus_that_are_in_the_cache_and_there() {
    let node = Node::new();
    let uuid = DeviceUuid::new("GPU-a");
    let samples: Samples = [read("temperature.gpu", 40)].into();
    let keep = || node.last_read.keep(&uuid, &Arc::new(samples.clone()));
    keep();
    assert!(node.told("_gpu_temperature").is_empty(), "nobody knows it");
    node.found("GPU-a", "H100");
    assert!(node.told("_gpu_temperature_celsius{").is_empty(), "dropped");
    keep();
    let line = "device_api_server_gpu_temperature_celsius{product=\"H100\",sensor=\"gpu\",uuid=\"GPU-a\"} 40";
    assert_eq!(node.told("_gpu_temperature_celsius{"), [line]);

    let mut is_gone = |conditions: &mut Vec<Condition>| {
        let gone = Condition::of_host(GONE, Judgement::Problem, "Replaced", WallTime::from_ms(1));
        condition::upsert(conditions, gone);
    };
    node.cache.change(&uuid, &mut is_gone);
    assert!(node.told("_gpu_temperature_celsius{").is_empty());
    assert_eq!(node.told("_gpu_health{").len(), Health::ALL.len());
}

#[test]
fn words_that_are_hostile_stay_in_their_label() {
    let node = Node::new();
    node.found("GPU-a", "x\"} 7\ndevice_api_server_up 0\n\\");
    let text = rendered(&node.metrics);
    check(&text, "device_api_server_up 1");
    assert!(!text.lines().any(|line| line == "device_api_server_up 0"));
    assert!(
        text.contains(r#"product="x\"} 7\ndevice_api_server_up 0\n\\",state="#),
        "{text}"
    );
}
