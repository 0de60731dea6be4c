use std::collections::BTreeSet;

use device_api_core::signal::{Attr, SignalKind, Source, Target, Value};
use device_api_nvml::Config;

use crate::harness::isolated;

#[test]
fn n3_an_xid_names_its_gpu_and_is_a_drill() {
    isolated("signals::n3_an_xid_names_its_gpu_and_is_a_drill", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        sim.raise(r#"{"command":"xid","gpu":5,"codes":[79]}"#);
        let xid = recorder.observed_after(0, SignalKind::Xid);
        assert_eq!(xid.code, Some(79));
        assert_eq!(xid.target, Target::Uuid(recorder.gpu(5)));
        assert_eq!(xid.source, Source::Nvml);
        assert_eq!(xid.evidence, "NVML event XidCriticalError 79");
        assert!(
            xid.drill && xid.instance.is_none() && xid.attrs.is_empty(),
            "{xid:?}"
        );
        assert_eq!(handle.counts().events, 1);
    });
}

#[test]
fn xids_of_one_moment_keep_their_order() {
    isolated("signals::xids_of_one_moment_keep_their_order", |sim| {
        let (recorder, _handle) = sim.start(sim.config());
        sim.raise(r#"{"command":"xid","gpu":2,"codes":[48,63,94,79]}"#);
        recorder.wait_for(|said| {
            said.observed()
                .filter(|seen| seen.code == Some(79))
                .cloned()
        });
        let codes: Vec<_> = recorder
            .observations(SignalKind::Xid)
            .iter()
            .map(|xid| xid.code)
            .collect();
        assert_eq!(codes, [48, 63, 94, 79].map(Some));
    });
}

#[test]
fn an_ignored_xid_is_counted_and_goes_no_further() {
    isolated(
        "signals::an_ignored_xid_is_counted_and_goes_no_further",
        |sim| {
            let ignored_xids = BTreeSet::from([43, 31]);
            let (recorder, handle) = sim.start(Config {
                ignored_xids,
                ..sim.config()
            });
            sim.raise(r#"{"command":"xid","gpu":0,"codes":[43,31,13]}"#);
            // They come in order: with 13 here, the others are through.
            assert_eq!(recorder.observed_after(0, SignalKind::Xid).code, Some(13));
            assert_eq!(recorder.observations(SignalKind::Xid).len(), 1);
            assert_eq!(
                (handle.counts().events, handle.counts().ignored_xids),
                (3, 2)
            );
        },
    );
}

#[test]
fn an_ecc_event_is_told_and_its_counter_read() {
    isolated(
        "signals::an_ecc_event_is_told_and_its_counter_read",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            let gpu = recorder.gpu(4);
            for (kind, event) in [
                ("corrected", "SingleBitEccError"),
                ("uncorrected", "DoubleBitEccError"),
            ] {
                let start = recorder.now();
                sim.raise(&format!(
                    r#"{{"command":"ecc","gpu":4,"kind":"{kind}","count":3}}"#
                ));
                let ecc = recorder.observed_after(start, SignalKind::Ecc);
                assert_eq!(ecc.target, Target::Uuid(gpu.clone()));
                assert_eq!(
                    (ecc.code, ecc.attrs),
                    (None, vec![Attr::text("error", kind)])
                );
                assert_eq!(ecc.evidence, format!("NVML event {event}"));
                recorder.sampled_after(start, &gpu, |samples| {
                    ["volatile", "aggregate"].into_iter().all(|counter| {
                        let reading = samples[&format!("ecc.{counter}.{kind}")].as_ref();
                        reading.is_ok_and(|reading| reading.value == Value::Int(3))
                    })
                });
            }
        },
    );
}

#[test]
fn a_recovery_action_is_told_when_it_changes() {
    isolated(
        "signals::a_recovery_action_is_told_when_it_changes",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            for action in [2, 0] {
                let start = recorder.now();
                sim.ask(&format!(
                    r#"{{"command":"recovery-action","gpu":6,"value":{action}}}"#
                ));
                let told = recorder.observed_after(start, SignalKind::RecoveryAction);
                assert_eq!(told.target, Target::Uuid(recorder.gpu(6)));
                assert_eq!(told.source, Source::Field230);
                assert_eq!(told.code, u64::try_from(action).ok());
                assert_eq!(told.attrs, [Attr::int("action", action)]);
                // Read again, and no news.
                recorder.sampled_after(recorder.now(), &recorder.gpu(6), |_| true);
            }
            assert_eq!(recorder.observations(SignalKind::RecoveryAction).len(), 2);
        },
    );
}

#[test]
fn a_wish_from_before_the_start_is_told() {
    isolated("signals::a_wish_from_before_the_start_is_told", |sim| {
        let (_, first) = sim.start(sim.config());
        first.stop();
        sim.ask(r#"{"command":"recovery-action","gpu":1,"value":1}"#);
        let (recorder, _handle) = sim.start(sim.config());
        let told = recorder.observed_after(0, SignalKind::RecoveryAction);
        assert_eq!(
            (told.target, told.code),
            (Target::Uuid(recorder.gpu(1)), Some(1))
        );
    });
}
