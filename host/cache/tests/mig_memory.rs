//! What a MIG instance costs, as the kernel counts it (N9, design section 8). A process of its own, or other tests
//! would count.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::sync::Arc;

use device_api_cache::{Cache, Config, Unobserved};
use device_api_core::clock::{ManualClock, WallTime};
use device_api_core::condition::{self, Condition};
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{DeviceCache, Devices};
use device_api_core::selector::Selection;
use device_api_core::verdict::Judgement;

/// With seven instances each as many as there may be in all.
const GPUS: u32 = 128;
const INSTANCES: u32 = 7;
/// As the bundled policies have of a GPU that is well, and half as many more.
const CONDITIONS: u32 = 18;
/// What the dialect keeps of one, encoded.
const ENCODED_BYTES: usize = 4096;
const KIB_MAX: u64 = 32;

fn uuid(gpu: u32) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-4cb7e076-f13e-4ed5-bbf3-{gpu:012}"))
}

fn device(gpu: u32, instances: u32) -> DeviceInfo {
    let mig = |at: u32| MigInstance {
        uuid: DeviceUuid::new(&format!("MIG-4cb7e076-f13e-4ed5-{at:04}-{gpu:012}")),
        gpu_instance: 7 + at,
        compute_instance: Some(0),
        profile: "1g.10gb".to_owned(),
        memory_bytes: Some(10 << 30),
    };
    DeviceInfo {
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        architecture: "Hopper".to_owned(),
        serial: format!("16532230{gpu:05}"),
        driver_version: "580.95.05".to_owned(),
        cuda_version: "13.0".to_owned(),
        mig: (0..instances).map(mig).collect(),
        ..DeviceInfo::bare(uuid(gpu))
    }
}

/// All conditions of all GPUs change.
fn judge(cache: &Cache, message: &str) {
    for gpu in 0..GPUS {
        cache.change(&uuid(gpu), &mut |conditions: &mut Vec<Condition>| {
            for n in 0..CONDITIONS {
                let type_ = format!("SomeConditionType{n:02}");
                let mut new =
                    Condition::of_host(&type_, Judgement::Ok, "WithinLimits", WallTime::default());
                new.message =
                    format!("{message}: a sentence or two of what was read, and when. {n}");
                condition::upsert(conditions, new);
            }
        });
    }
}

async fn read(cache: &Cache) -> usize {
    let listing = cache.list(&Selection::all()).await;
    for gpu in listing.gpus.iter() {
        gpu.encoded.get_or_make(0, || vec![1; ENCODED_BYTES].into());
    }
    listing.gpus.len()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn n9_an_instance_costs_at_most_32_kib() {
    let clock = Arc::new(ManualClock::default());
    let cache = Cache::in_memory(Config::default(), clock, Arc::new(Unobserved));
    for gpu in 0..GPUS {
        cache.upsert_device(device(gpu, 0)).unwrap();
    }
    judge(&cache, "before");
    read(&cache).await;
    let before = resident_kib();
    for gpu in 0..GPUS {
        cache.upsert_device(device(gpu, INSTANCES)).unwrap();
    }
    judge(&cache, "after");
    let all = GPUS * (1 + INSTANCES);
    assert_eq!(read(&cache).await, all as usize);
    let each = (resident_kib() - before) / u64::from(GPUS * INSTANCES);
    assert!(each <= KIB_MAX, "{each} KiB an instance");
}
