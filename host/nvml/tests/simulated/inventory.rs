use std::collections::BTreeSet;

use device_api_core::ports::NvmlStatus;
use device_api_core::signal::Value;
use device_api_nvml::Stopped;

use crate::harness::{Said, isolated};

#[test]
fn without_configuration_there_are_eight_whole_h100() {
    isolated(
        "inventory::without_configuration_there_are_eight_whole_h100",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            assert_eq!(handle.stop(), Stopped::Cleanly);
            let said = recorder.said();
            let found: Vec<_> = said.iter().filter_map(Said::found).collect();
            let statuses: Vec<_> = said.iter().filter_map(Said::status).collect();
            assert_eq!(
                statuses,
                [&NvmlStatus::Ready {
                    library: sim.library.display().to_string(),
                    driver: "580.82.07".to_owned(),
                    gpus: 8,
                    simulated: true,
                }]
            );
            assert_eq!(found.len(), 8);
            for (index, (info, samples)) in found.iter().enumerate() {
                assert_eq!(info.index, Some(u32::try_from(index).unwrap()));
                assert!(info.uuid.as_str().starts_with("GPU-"), "{info:?}");
                assert_eq!(info.product, "NVIDIA H100 80GB HBM3");
                assert_eq!(info.architecture, "Hopper");
                assert_eq!(info.memory_bytes, Some(81_559 << 20));
                assert_eq!(info.driver_version, "580.82.07");
                assert_eq!(info.cuda_version, "13.0");
                assert!(info.minor.is_some() && !info.serial.is_empty(), "{info:?}");
                assert!(info.simulated && info.mig.is_empty(), "{info:?}");
                let misses: Vec<_> = samples
                    .iter()
                    .filter(|(_, sample)| sample.is_err())
                    .collect();
                assert!(misses.is_empty(), "{misses:?}");
                let value = |key: &str| samples[key].as_ref().unwrap().value.clone();
                assert_eq!(value("temperature.shutdown"), Value::Int(92));
                assert_eq!(value("memory.total"), Value::Int(81_559 << 20));
                assert_eq!(value("row-remap.pending"), Value::Flag(false));
                assert_eq!(value("recovery.action"), Value::Int(0));
                assert_eq!(value("pcie.link-width-max"), Value::Int(16));
            }
            let uuids: BTreeSet<_> = found.iter().map(|(info, _)| &info.uuid).collect();
            let addresses: BTreeSet<_> = found.iter().filter_map(|(info, _)| info.pci).collect();
            assert_eq!((uuids.len(), addresses.len()), (8, 8));
            assert_eq!(addresses.first().unwrap().to_string(), "0000:1b:00.0");
        },
    );
}
