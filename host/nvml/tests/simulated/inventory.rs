use std::collections::BTreeSet;
use std::time::Duration;

use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::NvmlStatus;
use device_api_core::signal::{Miss, Value};
use device_api_nvml::{Config, Stopped};

use crate::harness::{Recorder, Said, isolated, isolated_with, start};

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
                let unreachable: Vec<_> = samples
                    .iter()
                    .filter(|(_, sample)| **sample == Err(Miss::Unreachable))
                    .collect();
                assert!(unreachable.is_empty(), "{unreachable:?}");
                // These GPUs remap rows, and retire no pages.
                assert_eq!(samples["retired-pages.pending"], Err(Miss::NotSupported));
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

/// What was last said of a GPU.
fn newest(recorder: &Recorder, uuid: &DeviceUuid) -> DeviceInfo {
    let said = recorder.said();
    let mut of_gpu = said.iter().filter_map(Said::found);
    let last = of_gpu.rfind(|(info, _)| info.uuid == *uuid);
    last.unwrap().0.clone()
}

/// Waits until the GPU is said to be as wanted.
#[track_caller]
fn told_after(
    recorder: &Recorder,
    start: usize,
    uuid: &DeviceUuid,
    wanted: impl Fn(&DeviceInfo) -> bool,
) -> DeviceInfo {
    recorder.wait_after(start, |said| {
        let (info, _) = said.found()?;
        (info.uuid == *uuid && wanted(info)).then(|| info.clone())
    })
}

#[test]
fn what_a_gpu_is_connected_to_is_told() {
    isolated("inventory::what_a_gpu_is_connected_to_is_told", |sim| {
        let (recorder, _handle) = sim.start(sim.config());
        let gpus: BTreeSet<_> = (0..8).map(|index| recorder.gpu(index)).collect();
        let mut ports = BTreeSet::new();
        for gpu in &gpus {
            let hardware = newest(&recorder, gpu).hardware;
            assert_eq!(hardware.power.max_mw, Some(700_000));
            assert_eq!(hardware.power.min_mw, Some(200_000));
            assert_eq!(hardware.power.default_mw, Some(700_000));
            assert_eq!(hardware.pcie.generation_max, Some(5));
            assert_eq!(hardware.pcie.width_max, Some(16));
            assert_eq!(hardware.mig_mode, Some(false));
            assert_eq!(hardware.nvlinks.len(), 18);
            for (number, link) in hardware.nvlinks.iter().enumerate() {
                assert_eq!(link.link, u32::try_from(number).unwrap());
                assert_eq!(link.remote.as_deref(), Some("switch"));
                let port = link.remote_pci.zip(link.remote_link);
                assert!(ports.insert(port.expect("known")), "{link:?}");
            }
            let peers: BTreeSet<_> = hardware
                .peers
                .iter()
                .map(|peer| peer.uuid.clone())
                .collect();
            let others: BTreeSet<_> = gpus.iter().filter(|other| *other != gpu).cloned().collect();
            assert_eq!(peers, others);
            let far = hardware.peers.iter().filter(|peer| peer.path == "SYS");
            assert_eq!(far.count(), 4, "on the other socket: {:?}", hardware.peers);
            let fabric = hardware.fabric.unwrap();
            assert_eq!(fabric.state, "completed");
            assert_eq!(fabric.clique, Some(0));
            let cluster = fabric.cluster_uuid.unwrap();
            assert_eq!(
                cluster.split('-').map(str::len).collect::<Vec<_>>(),
                [8, 4, 4, 4, 12]
            );
        }
    });
}

#[test]
fn what_a_board_does_not_have_is_absent() {
    isolated_with(
        "inventory::what_a_board_does_not_have_is_absent",
        &[("NVML_SIM_PROFILE", "v100")],
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(0);
            let (info, samples) = recorder.wait_for(|said| {
                let (info, samples) = said.found()?;
                (info.uuid == gpu).then(|| (info.clone(), samples.clone()))
            });
            assert_eq!(info.hardware.mig_mode, None);
            assert_eq!(info.hardware.fabric, None);
            for key in ["row-remap.pending", "row-remap.banks.max", "fabric.state"] {
                assert_eq!(samples[key], Err(Miss::NotSupported), "{key}");
            }
            // It retires pages, where later ones remap rows.
            for key in ["retired-pages.pending", "retired-pages.uncorrected"] {
                assert!(samples[key].is_ok(), "{key}: {:?}", samples[key]);
            }
        },
    );
}

#[test]
fn n9_a_gpu_that_is_cut_up_is_looked_at_with_the_next_readings() {
    isolated(
        "inventory::n9_a_gpu_that_is_cut_up_is_looked_at_with_the_next_readings",
        |sim| {
            let (recorder, _handle) = sim.start(Config {
                inventory_interval: Duration::from_hours(1),
                ..sim.config()
            });
            let gpu = recorder.gpu(5);
            let start = recorder.now();
            sim.ask(r#"{"command":"mig-mode","gpu":5,"on":true}"#);
            sim.ask(r#"{"command":"mig-create","gpu":5,"profiles":["1g.10gb"]}"#);
            told_after(&recorder, start, &gpu, |info| info.mig.len() == 1);
        },
    );
}

#[test]
fn n9_mig_instances_come_and_go_with_profile_and_parent() {
    isolated(
        "inventory::n9_mig_instances_come_and_go_with_profile_and_parent",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(5);
            let start = recorder.now();
            sim.ask(r#"{"command":"mig-mode","gpu":5,"on":true}"#);
            sim.ask(r#"{"command":"mig-create","gpu":5,"profiles":["3g.40gb","1g.10gb"]}"#);
            let info = told_after(&recorder, start, &gpu, |info| info.mig.len() == 2);
            assert_eq!(info.hardware.mig_mode, Some(true));
            let profiles: BTreeSet<_> = info
                .mig
                .iter()
                .map(|instance| instance.profile.as_str())
                .collect();
            assert_eq!(profiles, BTreeSet::from(["3g.40gb", "1g.10gb"]));
            let ids: BTreeSet<_> = info
                .mig
                .iter()
                .map(|instance| instance.gpu_instance)
                .collect();
            assert_eq!(ids.len(), 2);
            for instance in &info.mig {
                assert!(instance.uuid.as_str().starts_with("MIG-"), "{instance:?}");
                assert!(instance.compute_instance.is_some(), "{instance:?}");
                let whole = info.memory_bytes;
                assert!(instance.memory_bytes > Some(8 << 30) && instance.memory_bytes < whole);
            }
            let start = recorder.now();
            sim.ask(r#"{"command":"mig-destroy","gpu":5}"#);
            told_after(&recorder, start, &gpu, |info| info.mig.is_empty());
            let start = recorder.now();
            sim.ask(r#"{"command":"mig-mode","gpu":5,"on":false}"#);
            told_after(&recorder, start, &gpu, |info| {
                info.hardware.mig_mode == Some(false)
            });
            // Of the others nothing changed, so nothing was said.
            let again = recorder.said()[start..]
                .iter()
                .filter_map(Said::found)
                .any(|(info, _)| info.uuid != gpu);
            assert!(!again);
            assert!(
                recorder.recoveries().is_empty(),
                "{:?}",
                recorder.recoveries()
            );
        },
    );
}

#[test]
fn n2_an_old_driver_lacks_functions_and_what_they_tell_is_absent() {
    isolated(
        "inventory::n2_an_old_driver_lacks_functions_and_what_they_tell_is_absent",
        |sim| {
            let folder = tempfile::tempdir().unwrap();
            let (recorder, handle) = start(Config {
                library: Some(sim.old_library(450, folder.path())),
                ..sim.config()
            });
            recorder.ready(1);
            let (info, samples) = recorder.wait_for(|said| {
                said.found()
                    .map(|(info, samples)| (info.clone(), samples.clone()))
            });
            assert_eq!(info.hardware.fabric, None);
            for key in [
                "temperature.margin",
                "ecc.sram.threshold-exceeded",
                "fabric.state",
            ] {
                assert_eq!(samples[key], Err(Miss::NotSupported), "{key}");
            }
            // Where an older function tells the same, it is asked.
            for key in ["memory.used", "clocks.throttle-reasons", "temperature.gpu"] {
                assert!(samples[key].is_ok(), "{key}: {:?}", samples[key]);
            }
            assert_eq!(info.memory_bytes, Some(81_559 << 20));
            assert_eq!(handle.counts().failed_calls, 0);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}
