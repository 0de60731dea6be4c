use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::device::DeviceInfo;
use device_api_core::durable::SeenBefore;
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::ports::{NvmlControl, NvmlStatus};
use device_api_core::recovery::{Recovery, Release, ReleaseFor};
use device_api_core::signal::{SignalKind, Target, Value};
use device_api_nvml::{Config, Stopped};

use crate::harness::{Said, Sim, isolated, value, wait};

#[test]
fn n7_a_reset_is_told_by_its_evidence() {
    isolated("recovery::n7_a_reset_is_told_by_its_evidence", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        let gpu = recorder.gpu(6);
        let stories = [
            (
                r#"{"command":"recovery-action","gpu":6,"value":1}"#,
                "recovery.action",
                Value::Int(1),
                r#"{"command":"recovery-action","gpu":6,"value":0}"#,
                "the recovery action went from 1 back to none",
            ),
            (
                r#"{"command":"row-remap","gpu":6,"uncorrectable":1,"pending":true}"#,
                "row-remap.pending",
                Value::Flag(true),
                r#"{"command":"row-remap","gpu":6,"uncorrectable":1}"#,
                "no row remap is pending any more",
            ),
            (
                r#"{"command":"set","gpu":6,"readings":{"ecc.volatile.dram.corrected":9,"pcie.replays":3}}"#,
                "ecc.volatile.corrected",
                Value::Int(9),
                r#"{"command":"gpu-reset","gpu":6}"#,
                "ecc.volatile.corrected fell from 9 to 0; pcie.replays fell from 3 to 0",
            ),
        ];
        for (before, key, is, after, expected) in stories {
            let start = recorder.now();
            sim.ask(before);
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, key) == Some(is.clone())
            });
            let start = recorder.now();
            sim.ask(after);
            let evidence = recorder.recovered_after(start, &gpu, &Recovery::GpuReset);
            assert!(evidence.contains(expected), "{evidence}");
        }
        let told = recorder.recoveries();
        assert!(told.iter().all(|(uuid, ..)| *uuid == gpu), "{told:?}");
        assert_eq!(told.len(), 3, "each once: {told:?}");
        assert_eq!(handle.counts().recoveries, 3);
    });
}

#[test]
fn n7_counters_zeroed_by_nvidia_smi_are_no_reset_and_a_gpu_that_was_away_was_reset() {
    isolated(
        "recovery::n7_counters_zeroed_by_nvidia_smi_are_no_reset_and_a_gpu_that_was_away_was_reset",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let gpu = recorder.gpu(6);
            let counted = |count: i64| {
                let start = recorder.now();
                let set =
                    r#"{"command":"set","gpu":6,"readings":{"ecc.volatile.dram.uncorrected":N}}"#;
                sim.ask(&set.replace('N', &count.to_string()));
                recorder.sampled_after(start, &gpu, |samples| {
                    value(samples, "ecc.volatile.uncorrected") == Some(Value::Int(count))
                });
            };
            counted(2);
            // `nvidia-smi --reset-ecc-errors=0`
            counted(0);
            counted(2);
            assert!(
                recorder.recoveries().is_empty(),
                "{:?}",
                recorder.recoveries()
            );
            let start = recorder.now();
            sim.ask(r#"{"command":"lost","gpu":6}"#);
            recorder.observed_after(start, SignalKind::GpuLost);
            let start = recorder.now();
            sim.ask(r#"{"command":"gpu-reset","gpu":6}"#);
            let evidence = recorder.recovered_after(start, &gpu, &Recovery::GpuReset);
            assert!(
                evidence.contains("fell from 2 to 0; it was lost in between"),
                "{evidence}"
            );
            counted(2);
            assert_eq!(recorder.recoveries().len(), 1);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n7_counters_that_begin_anew_while_nobody_of_ours_had_the_driver_are_no_reset() {
    isolated(
        "recovery::n7_counters_that_begin_anew_while_nobody_of_ours_had_the_driver_are_no_reset",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let gpu = recorder.gpu(6);
            let counted = |count: i64| {
                let start = recorder.now();
                let set = r#"{"command":"set","gpu":6,"readings":{"ecc.volatile.dram.corrected":N,"pcie.replays":N}}"#;
                sim.ask(&set.replace('N', &count.to_string()));
                recorder.sampled_after(start, &gpu, |samples| {
                    value(samples, "ecc.volatile.corrected") == Some(Value::Int(count))
                        && value(samples, "pcie.replays") == Some(Value::Int(count))
                });
            };
            let zeroed = |start| {
                recorder.sampled_after(start, &gpu, |samples| {
                    value(samples, "ecc.volatile.corrected") == Some(Value::Int(0))
                });
            };
            let zero = r#"{"command":"set","gpu":6,"readings":{"ecc.volatile.dram.corrected":0,"pcie.replays":0}}"#;
            let operator = handle.operator();
            let release = |purpose| {
                let ttl = Duration::from_hours(1);
                wait(operator.release(Release { purpose, ttl })).unwrap();
            };
            // A driver that is loaded begins them anew, and so does one that its last client has left.
            for purposes in [
                &[ReleaseFor::Reset][..],
                &[ReleaseFor::Reset, ReleaseFor::Upgrade],
                &[ReleaseFor::Upgrade, ReleaseFor::Reset],
            ] {
                counted(3);
                purposes.iter().copied().for_each(release);
                sim.ask(r#"{"command":"unload"}"#);
                sim.ask(r#"{"command":"load"}"#);
                sim.ask(zero);
                let start = recorder.now();
                wait(operator.attach()).unwrap();
                zeroed(start);
                assert_eq!(recorder.recoveries(), [], "{purposes:?}");
            }
            // The library was opened anew: we were no client in between.
            counted(3);
            let start = recorder.now();
            sim.ask(r#"{"command":"fail","gpu":1,"call":"nvmlDeviceGetPowerUsage","code":1}"#);
            recorder.missing_after(start);
            sim.ask(zero);
            let start = recorder.now();
            sim.ask(r#"{"command":"unfail"}"#);
            zeroed(start);
            assert_eq!(recorder.recoveries(), []);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n7_a_driver_that_was_unloaded_is_a_rebind_of_each_gpu_and_no_reset() {
    isolated(
        "recovery::n7_a_driver_that_was_unloaded_is_a_rebind_of_each_gpu_and_no_reset",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            // A new driver counts from zero; that is no evidence of a reset.
            sim.ask(r#"{"command":"ecc","gpu":2,"kind":"corrected","count":9}"#);
            recorder.sampled_after(0, &recorder.gpu(2), |samples| {
                value(samples, "ecc.volatile.corrected") == Some(Value::Int(9))
            });
            sim.ask(r#"{"command":"unload"}"#);
            let gone = recorder.wait_for(|said| {
                let NvmlStatus::Missing { why } = said.status()? else {
                    return None;
                };
                why.contains("DRIVER_NOT_LOADED").then(|| why.clone())
            });
            sim.ask(r#"{"command":"reset","gpu":2}"#);
            let start = recorder.now();
            sim.ask(r#"{"command":"load"}"#);
            recorder.ready(2);
            let told = recorder.recoveries();
            let rebound: BTreeSet<_> = told.iter().map(|(uuid, ..)| uuid.clone()).collect();
            assert_eq!((told.len(), rebound.len()), (8, 8), "{told:?}");
            for (_, recovery, evidence) in &told {
                assert_eq!(*recovery, Recovery::DriverRebind);
                assert!(evidence.contains(&gone), "{evidence}");
            }
            // What is told of the GPU now came after it.
            let said = recorder.said();
            let first = said[start..]
                .iter()
                .find(|said| matches!(said, Said::Recovered(..)) || said.found().is_some());
            assert!(matches!(first, Some(Said::Recovered(..))), "{first:?}");
        },
    );
}

#[test]
fn n7_a_restart_of_ours_recovers_nothing() {
    isolated("recovery::n7_a_restart_of_ours_recovers_nothing", |sim| {
        let (recorder, first) = sim.start(sim.config());
        sim.ask(r#"{"command":"ecc","gpu":1,"kind":"corrected","count":9}"#);
        sim.ask(r#"{"command":"row-remap","gpu":1,"uncorrectable":1,"pending":true}"#);
        recorder.sampled_after(0, &recorder.gpu(1), |samples| {
            value(samples, "row-remap.pending") == Some(Value::Flag(true))
        });
        first.stop();
        // Whatever happened meanwhile: nobody was there to compare.
        sim.ask(r#"{"command":"reset","gpu":1}"#);
        let (recorder, _second) = sim.start(sim.config());
        for _ in 0..3 {
            recorder.sampled_after(recorder.now(), &recorder.gpu(1), |_| true);
        }
        assert!(recorder.recoveries().is_empty());
    });
}

#[test]
fn n7_errors_of_nvml_recover_nothing() {
    isolated("recovery::n7_errors_of_nvml_recover_nothing", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        let gpu = recorder.gpu(1);
        sim.ask(r#"{"command":"ecc","gpu":1,"kind":"corrected","count":9}"#);
        sim.ask(r#"{"command":"recovery-action","gpu":1,"value":1}"#);
        recorder.sampled_after(0, &gpu, |samples| {
            value(samples, "recovery.action") == Some(Value::Int(1))
                && value(samples, "ecc.volatile.corrected") == Some(Value::Int(9))
        });
        // UNKNOWN, NOT_SUPPORTED, GPU_IS_LOST, TIMEOUT; and back.
        for code in [999, 3, 15, 10] {
            for call in ["nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEccErrors"] {
                let start = recorder.now();
                sim.ask(&format!(
                    r#"{{"command":"fail","gpu":1,"call":"{call}","code":{code}}}"#
                ));
                // The reading tells, or the inventory, where that asks first and it is lost by the answer.
                recorder.wait_after(start, |said| {
                    if let Said::Sampled(uuid, samples) = said {
                        let fails = samples["recovery.action"].is_err()
                            || samples["ecc.volatile.corrected"].is_err();
                        return (*uuid == gpu && fails).then_some(());
                    }
                    let seen = said.observed()?;
                    (seen.kind == SignalKind::GpuLost).then_some(())
                });
                let start = recorder.now();
                sim.ask(r#"{"command":"unfail"}"#);
                recorder.sampled_after(start, &gpu, |samples| {
                    samples["recovery.action"].is_ok() && samples["ecc.volatile.corrected"].is_ok()
                });
            }
        }
        assert!(
            recorder.recoveries().is_empty(),
            "{:?}",
            recorder.recoveries()
        );
        assert_eq!(handle.counts().sessions, 1);
        // UNINITIALIZED: the library is opened again, and the driver was there all the time.
        sim.ask(r#"{"command":"fail","gpu":1,"call":"nvmlDeviceGetPowerUsage","code":1}"#);
        recorder.missing_after(0);
        sim.ask(r#"{"command":"unfail"}"#);
        recorder.ready(2);
        recorder.sampled_after(recorder.now(), &gpu, |samples| {
            value(samples, "nvml.state") == Some(Value::Int(0))
        });
        assert!(
            recorder.recoveries().is_empty(),
            "{:?}",
            recorder.recoveries()
        );
    });
}

#[test]
fn n7_another_gpu_in_the_slot_is_a_replacement() {
    isolated(
        "recovery::n7_another_gpu_in_the_slot_is_a_replacement",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let old = recorder.gpu(3);
            let slot = recorder.wait_for(|said| {
                let (info, _) = said.found()?;
                (info.uuid == old).then_some(info.pci)
            });
            let start = recorder.now();
            sim.ask(r#"{"command":"replace","gpu":3}"#);
            let (by, evidence) = recorder.wait_after(start, |said| {
                let (uuid, recovery, evidence) = said.recovered()?;
                let Recovery::Replaced { by } = recovery else {
                    return None;
                };
                (*uuid == old).then(|| (by.clone(), evidence.clone()))
            });
            assert!(
                evidence.contains(old.as_str()) && evidence.contains(by.as_str()),
                "{evidence}"
            );
            let info = recorder.wait_after(start, |said| {
                let (info, _) = said.found()?;
                (info.uuid == by).then(|| info.clone())
            });
            assert_eq!((info.pci, info.index), (slot, Some(3)));
            // It is heard and read; the old one is not asked after any more.
            let start = recorder.now();
            while !sim
                .ask(r#"{"command":"xid","gpu":3,"codes":[31]}"#)
                .contains(r#""delivered":true"#)
            {}
            let xid = recorder.observed_after(start, SignalKind::Xid);
            assert_eq!(xid.target, Target::Uuid(by.clone()));
            recorder.sampled_after(start, &by, |_| true);
            // The others' neighbour has another name now.
            recorder.wait_for(|said| {
                let (info, _) = said.found()?;
                let peers = &info.hardware.peers;
                let is_new = info.index == Some(0)
                    && peers.iter().any(|peer| peer.uuid == by)
                    && peers.iter().all(|peer| peer.uuid != old);
                is_new.then_some(())
            });
            let told = recorder.recoveries();
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n7_another_gpu_in_the_slot_after_a_release_is_a_replacement_and_no_loss() {
    isolated(
        "recovery::n7_another_gpu_in_the_slot_after_a_release_is_a_replacement_and_no_loss",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            let old = recorder.gpu(3);
            let operator = handle.operator();
            let release = Release {
                purpose: ReleaseFor::Reset,
                ttl: Duration::from_hours(1),
            };
            wait(operator.release(release)).unwrap();
            sim.ask(r#"{"command":"replace","gpu":3}"#);
            wait(operator.attach()).unwrap();
            recorder.ready(2);
            let told = recorder.recoveries();
            assert!(
                matches!(&told[..], [(uuid, Recovery::Replaced { .. }, _)] if *uuid == old),
                "{told:?}"
            );
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
        },
    );
}

/// GPUs of an earlier run, by slot: one that is there, one that was replaced, one whose slot is empty.
fn seen_before(sim: &Sim) -> (Vec<SeenBefore>, DeviceUuid, DeviceUuid) {
    let (recorder, handle) = sim.start(sim.config());
    let info = |index| {
        let gpu = recorder.gpu(index);
        recorder.wait_for(|said| {
            let (info, _) = said.found()?;
            (info.uuid == gpu).then(|| info.clone())
        })
    };
    let (there, other) = (info(2), info(3));
    assert_eq!(handle.stop(), Stopped::Cleanly);
    let seen = |uuid: &str, slot: Option<PciAddress>| SeenBefore {
        info: Arc::new(DeviceInfo::bare(DeviceUuid::new(uuid))),
        slot: slot.unwrap(),
    };
    let empty = "0000:f7:00.0".parse().ok();
    let earlier = vec![
        seen(there.uuid.as_str(), there.pci),
        seen("GPU-old", other.pci),
        seen("GPU-off", empty),
    ];
    (earlier, there.uuid, other.uuid)
}

#[test]
fn n7_who_was_replaced_while_the_daemon_was_down_is_told_and_who_is_missing_is_lost() {
    isolated(
        "recovery::n7_who_was_replaced_while_the_daemon_was_down_is_told_and_who_is_missing_is_lost",
        |sim| {
            let (seen_before, there, by) = seen_before(sim);
            let config = Config {
                seen_before,
                ..sim.config()
            };
            let (recorder, handle) = sim.start(config);
            let told = recorder.recoveries();
            let expected = Recovery::Replaced { by: by.clone() };
            assert!(
                matches!(&told[..], [(uuid, recovery, evidence)]
                    if uuid.as_str() == "GPU-old" && *recovery == expected && evidence.contains(by.as_str())),
                "{told:?}"
            );
            let lost = recorder.observations(SignalKind::GpuLost);
            let target = Target::Uuid(DeviceUuid::new("GPU-off"));
            assert!(
                matches!(&lost[..], [lost] if lost.target == target && lost.drill
                    && lost.evidence.contains("0000:f7:00.0")),
                "{lost:?}"
            );
            // Once, also where the library is opened again.
            sim.ask(r#"{"command":"fail","gpu":1,"call":"nvmlDeviceGetPowerUsage","code":1}"#);
            recorder.missing_after(0);
            sim.ask(r#"{"command":"unfail"}"#);
            recorder.ready(2);
            recorder.sampled_after(recorder.now(), &there, |_| true);
            assert_eq!(recorder.recoveries().len(), 1);
            assert_eq!(recorder.observations(SignalKind::GpuLost).len(), 1);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n7_nobody_is_missing_while_one_hangs_that_has_not_told_its_name() {
    isolated(
        "recovery::n7_nobody_is_missing_while_one_hangs_that_has_not_told_its_name",
        |sim| {
            let (seen_before, _, _) = seen_before(sim);
            sim.ask(r#"{"command":"hang","gpu":5}"#);
            let config = Config {
                seen_before,
                hung_after: Duration::from_millis(200),
                ..sim.config()
            };
            let (recorder, handle) = sim.start(config);
            let gpu = recorder.gpu(1);
            recorder.sampled_after(recorder.now(), &gpu, |_| true);
            assert!(recorder.recoveries().is_empty());
            assert!(recorder.observations(SignalKind::GpuLost).is_empty());
            sim.ask(r#"{"command":"unhang"}"#);
            let lost = recorder.observed_after(0, SignalKind::GpuLost);
            assert_eq!(lost.target, Target::Uuid(DeviceUuid::new("GPU-off")));
            assert_eq!(recorder.recoveries().len(), 1);
            drop(handle);
        },
    );
}

#[test]
fn n7_an_upgrade_of_the_driver_is_a_rebind() {
    isolated("recovery::n7_an_upgrade_of_the_driver_is_a_rebind", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        sim.ask(r#"{"command":"ecc","gpu":2,"kind":"corrected","count":9}"#);
        recorder.sampled_after(0, &recorder.gpu(2), |samples| {
            value(samples, "ecc.volatile.corrected") == Some(Value::Int(9))
        });
        let operator = handle.operator();
        let release = Release {
            purpose: ReleaseFor::Upgrade,
            ttl: Duration::from_hours(1),
        };
        wait(operator.release(release)).unwrap();
        sim.ask(r#"{"command":"unload"}"#);
        sim.ask(r#"{"command":"driver","version":"590.10.01","library":"590.10.01"}"#);
        sim.ask(r#"{"command":"load"}"#);
        wait(operator.attach()).unwrap();
        recorder.ready(2);
        let told = recorder.recoveries();
        assert_eq!(told.len(), 8, "{told:?}");
        for (_, recovery, evidence) in &told {
            assert_eq!(*recovery, Recovery::DriverRebind, "no reset was seen");
            assert!(
                evidence.contains("580.82.07") && evidence.contains("590.10.01"),
                "{evidence}"
            );
        }
        let info = recorder.wait_for(|said| {
            let (info, _) = said.found()?;
            (info.driver_version == "590.10.01").then(|| info.clone())
        });
        assert!(info.simulated);
    });
}

#[test]
fn n2_a_driver_of_another_version_than_its_library_is_told_and_waited_for() {
    isolated(
        "recovery::n2_a_driver_of_another_version_than_its_library_is_told_and_waited_for",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            sim.ask(r#"{"command":"unload"}"#);
            recorder.missing_after(0);
            // Upgraded under us: the kernel's half is there, the library's is yet to come.
            sim.ask(r#"{"command":"driver","version":"590.10.01"}"#);
            sim.ask(r#"{"command":"load"}"#);
            let start = recorder.now();
            recorder.wait_for(|said| {
                let NvmlStatus::Missing { why } = said.status()? else {
                    return None;
                };
                why.contains("LIB_RM_VERSION_MISMATCH").then_some(())
            });
            sim.ask(r#"{"command":"driver","library":"590.10.01"}"#);
            recorder.ready(2);
            let told = recorder.recoveries();
            assert_eq!(told.len(), 8, "{told:?}");
            assert!(recorder.now() > start);
        },
    );
}

#[test]
fn n7_a_gpu_reset_that_nvidia_smi_makes_is_noticed() {
    isolated(
        "recovery::n7_a_gpu_reset_that_nvidia_smi_makes_is_noticed",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(0);
            sim.ask(r#"{"command":"row-remap","gpu":0,"uncorrectable":1,"pending":true}"#);
            recorder.sampled_after(0, &gpu, |samples| {
                value(samples, "row-remap.pending") == Some(Value::Flag(true))
            });
            let start = recorder.now();
            sim.ask(r#"{"command":"gpu-reset","gpu":0}"#);
            recorder.recovered_after(start, &gpu, &Recovery::GpuReset);
            // It keeps what it remapped.
            recorder.sampled_after(start, &gpu, |samples| {
                value(samples, "row-remap.uncorrectable") == Some(Value::Int(1))
                    && value(samples, "row-remap.pending") == Some(Value::Flag(false))
            });
        },
    );
}
