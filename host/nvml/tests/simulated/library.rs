use std::fs;
use std::path::PathBuf;

use device_api_core::ports::NvmlStatus;
use device_api_core::signal::{SignalKind, Target, Value};
use device_api_nvml::{Config, Stopped};

use crate::harness::{Said, isolated, start, value};

#[test]
fn n2_a_missing_library_is_told_and_taken_up_when_it_comes() {
    isolated(
        "library::n2_a_missing_library_is_told_and_taken_up_when_it_comes",
        |sim| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("libnvidia-ml.so.1");
            let (recorder, handle) = start(Config {
                library: Some(path.clone()),
                ..sim.config()
            });
            let why = recorder.missing_after(0);
            assert!(
                why.contains(&path.display().to_string()) && why.contains("--nvml-library"),
                "{why}"
            );
            assert!(why.contains("No such file"), "{why}");
            assert!(!why.contains('\n'), "{why}");
            std::os::unix::fs::symlink(&sim.library, &path).unwrap();
            recorder.ready(1);
            assert_eq!(handle.counts().sessions, 1);
            assert_eq!(handle.stop(), Stopped::Cleanly);
        },
    );
}

#[test]
fn n2_the_driver_root_is_looked_through() {
    isolated("library::n2_the_driver_root_is_looked_through", |sim| {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(&sim.library, folder.join("libnvidia-ml.so.1")).unwrap();
        let driver_root = Some(root.path().to_owned());
        let (recorder, _handle) = start(Config {
            library: None,
            driver_root,
            ..sim.config()
        });
        recorder.ready(1);
    });
}

#[test]
fn a_library_that_is_no_nvml_is_named() {
    isolated("library::a_library_that_is_no_nvml_is_named", |sim| {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .split_whitespace()
            .find(|word| word.contains("/libc.so") || word.contains("/ld-musl"));
        let libc = PathBuf::from(libc.unwrap());
        let (recorder, handle) = start(Config {
            library: Some(libc.clone()),
            ..sim.config()
        });
        let why = recorder.missing_after(0);
        assert!(
            why.starts_with(&format!("{} is no NVML", libc.display())),
            "{why}"
        );
        assert_eq!(
            handle.stop(),
            Stopped::Cleanly,
            "also while it waits to look again"
        );
    });
}

#[test]
fn a_file_that_is_no_library_is_told_in_one_line() {
    isolated(
        "library::a_file_that_is_no_library_is_told_in_one_line",
        |sim| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), "this is text, no library of any kind").unwrap();
            let library = Some(file.path().to_owned());
            let (recorder, _handle) = start(Config {
                library,
                ..sim.config()
            });
            let why = recorder.missing_after(0);
            assert!(
                why.starts_with("can't load ") && !why.contains('\n'),
                "{why}"
            );
            let cause = "invalid ELF header";
            assert!(
                why.matches(cause).count() <= 1,
                "a cause is told once: {why}"
            );
        },
    );
}

#[test]
fn n2_a_driver_that_goes_and_comes_is_followed() {
    isolated(
        "library::n2_a_driver_that_goes_and_comes_is_followed",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            sim.ask(r#"{"command":"unload"}"#);
            let why = recorder.missing_after(0);
            assert!(
                why.contains("the driver went away") && why.contains("UNINITIALIZED"),
                "{why}"
            );
            sim.ask(r#"{"command":"load"}"#);
            recorder.ready(2);
            let start = recorder.now();
            while !sim
                .ask(r#"{"command":"xid","gpu":4,"codes":[13]}"#)
                .contains(r#""delivered":true"#)
            {}
            let xid = recorder.observed_after(start, SignalKind::Xid);
            assert_eq!(xid.target, Target::Uuid(recorder.gpu(4)));
            assert!(handle.counts().sessions >= 2);
            assert!(
                sim.ask(r#"{"command":"status"}"#).contains(r#""users":1"#),
                "the old library is shut down"
            );
            assert_eq!(handle.stop(), Stopped::Cleanly);
            assert!(
                sim.ask(r#"{"command":"status"}"#).contains(r#""users":0"#),
                "and so is this one"
            );
        },
    );
}

#[test]
fn n2_that_the_driver_is_gone_is_the_last_that_is_told_of_its_gpus() {
    isolated(
        "library::n2_that_the_driver_is_gone_is_the_last_that_is_told_of_its_gpus",
        |sim| {
            let (recorder, _handle) = sim.start(sim.config());
            // Whoever notices it was just reading: what it had read comes before, each time.
            for session in 2..=5 {
                let start = recorder.now();
                let noticed = r#"{"command":"fail","gpu":7,"call":"nvmlDeviceGetTemperature","code":1,"times":1}"#;
                sim.ask(noticed);
                recorder.missing_after(start);
                recorder.ready(session);
                let said = recorder.said();
                let is_missing =
                    |said: &Said| matches!(said.status(), Some(NvmlStatus::Missing { .. }));
                let missing = said.iter().skip(start).position(is_missing).unwrap() + start;
                let found = said
                    .iter()
                    .skip(missing)
                    .position(|said| said.found().is_some());
                let until_found = &said[start..missing + found.unwrap()];
                for gpu in 0..8 {
                    let gpu = recorder.gpu(gpu);
                    let told = until_found.iter().rev().find_map(|said| {
                        let Said::Sampled(uuid, samples) = said else {
                            return None;
                        };
                        (*uuid == gpu).then(|| value(samples, "nvml.state"))?
                    });
                    assert_eq!(told, Some(Value::Int(3)), "{gpu}");
                }
            }
        },
    );
}

#[test]
fn n2_a_driver_that_does_not_start_is_tried_again() {
    isolated(
        "library::n2_a_driver_that_does_not_start_is_tried_again",
        |sim| {
            let (_, first) = sim.start(sim.config());
            first.stop();
            sim.ask(r#"{"command":"unload"}"#);
            let (recorder, _handle) = start(sim.config());
            let why = recorder.missing_after(0);
            assert!(
                why.contains("DRIVER_NOT_LOADED") && why.contains("nvidia-smi"),
                "{why}"
            );
            sim.ask(r#"{"command":"load"}"#);
            recorder.ready(1);
        },
    );
}

#[test]
fn n1_a_hung_event_wait_stops_neither_the_readings_nor_the_stop() {
    isolated(
        "library::n1_a_hung_event_wait_stops_neither_the_readings_nor_the_stop",
        |sim| {
            let (recorder, handle) = sim.start(sim.config());
            sim.ask(r#"{"command":"hang","call":"nvmlEventSetWait_v2"}"#);
            // Nobody takes events: the thread hangs.
            while sim
                .ask(r#"{"command":"xid","gpu":0,"codes":[13]}"#)
                .contains(r#""delivered":true"#)
            {}
            recorder.sampled_after(recorder.now(), &recorder.gpu(0), |_| true);
            assert_eq!(handle.stop(), Stopped::Hung);
            assert!(
                sim.ask(r#"{"command":"status"}"#).contains(r#""users":1"#),
                "leaked, not closed"
            );
        },
    );
}

#[test]
fn n1_hung_readings_stop_no_events() {
    isolated("library::n1_hung_readings_stop_no_events", |sim| {
        let (recorder, handle) = sim.start(sim.config());
        sim.ask(r#"{"command":"hang","call":"nvmlDeviceGetTemperature"}"#);
        // Once a whole round of another kind of news passes without a reading, it hangs.
        loop {
            let polls = handle.counts().polls;
            sim.raise(r#"{"command":"xid","gpu":5,"codes":[31]}"#);
            if handle.counts().polls == polls {
                break;
            }
        }
        let start = recorder.now();
        sim.raise(r#"{"command":"xid","gpu":5,"codes":[79]}"#);
        recorder.wait_after(start, |said| {
            said.observed()
                .filter(|seen| seen.code == Some(79))
                .cloned()
        });
        sim.ask(r#"{"command":"unhang"}"#);
        recorder.sampled_after(start, &recorder.gpu(7), |_| true);
        assert_eq!(handle.stop(), Stopped::Cleanly);
    });
}
