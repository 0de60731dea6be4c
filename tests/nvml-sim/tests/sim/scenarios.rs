//! Scenarios, by a clock that the test moves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{client, device, folder, initialised, isolated, listening, nvml, wait};
use nvml_sim::control::{Client, Request, ScenarioStatus};
use nvml_sim::profile::Profile;
use nvml_sim::scenario;

const XID: u64 = 8;
const HOUR: Duration = Duration::from_secs(3600);

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios")
}

fn progress(client: &mut Client) -> ScenarioStatus {
    client.status().unwrap().scenario.unwrap()
}

/// A file of this test.
fn file(text: &str) -> PathBuf {
    let path = folder().join("test.yaml");
    fs::write(&path, text).unwrap();
    path
}

const STORY: &str = "
profile: h100
gpus: 8
steps:
  - when: initialised
    do:
      - temperature: { gpu: 0, celsius: 50 }
  - after: 10s
    do:
      - temperature: { gpu: 0, celsius: 60 }
  - after: 500ms
    do:
      - temperature: { gpu: 0, celsius: 70 }
      - xid: { gpu: 0, codes: [79] }
  - when: { call: nvmlDeviceGetUUID, gpu: 1 }
    do:
      - temperature: { gpu: 0, celsius: 80 }
  - when: released
    do:
      - temperature: { gpu: 0, celsius: 30 }
";

#[test]
fn steps_come_at_their_times_and_triggers() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, XID);
        let mut client = client();
        let story = scenario::read(&file(STORY)).unwrap();
        client.play(story.clone(), 0.0, false).unwrap();
        let celsius = |client: &mut Client| client.status().unwrap().gpus[0].temperature_c;
        client.advance(Duration::from_millis(9_999)).unwrap();
        assert_eq!((celsius(&mut client), progress(&mut client).done), (50, 1));
        client.advance(Duration::from_millis(1)).unwrap();
        assert_eq!(celsius(&mut client), 60);
        assert_eq!(wait(&lib, set, 0).map(|event| event.eventData), Err(10));
        client.advance(Duration::from_millis(500)).unwrap();
        assert_eq!(
            (celsius(&mut client), wait(&lib, set, 0).unwrap().eventData),
            (70, 79)
        );
        let busy = client.play(story, 1.0, true).unwrap_err();
        assert!(busy.to_string().contains("stop"), "{busy}");
        // Another GPU, another call, and then the one that is waited for.
        let mut buffer = [0; 96];
        let text = buffer.as_mut_ptr();
        nvml!(lib.nvmlDeviceGetUUID(device(&lib, 0), text, 96));
        nvml!(lib.nvmlDeviceGetName(device(&lib, 1), text, 96));
        client.advance(HOUR).unwrap();
        assert_eq!((celsius(&mut client), progress(&mut client).done), (70, 3));
        nvml!(lib.nvmlDeviceGetUUID(device(&lib, 1), text, 96));
        client.advance(Duration::ZERO).unwrap();
        assert_eq!(celsius(&mut client), 80);
        nvml!(lib.nvmlShutdown());
        client.advance(Duration::ZERO).unwrap();
        let end = progress(&mut client);
        assert_eq!(
            (celsius(&mut client), end.state.as_str(), end.done),
            (30, "played", 5)
        );
    });
}

#[test]
fn a_clock_moved_at_once_finds_the_steps_before_it_done() {
    isolated(&[], || {
        let _lib = initialised();
        let mut client = client();
        let story = scenario::read(&file(STORY)).unwrap();
        for _ in 0..200 {
            client.play(story.clone(), 0.0, false).unwrap();
            client.advance(Duration::from_secs(10)).unwrap();
            assert_eq!(progress(&mut client).done, 2);
            client.request(&Request::Stop).unwrap();
        }
    });
}

#[test]
fn a_scenario_is_stopped_and_another_played() {
    isolated(&[], || {
        let _lib = initialised();
        let mut client = client();
        let story = scenario::read(&file(STORY)).unwrap();
        client.play(story.clone(), 0.0, false).unwrap();
        client.request(&Request::Stop).unwrap();
        assert_eq!(progress(&mut client).state, "stopped");
        assert!(client.request(&Request::Stop).is_err());
        client.play(story, 0.0, false).unwrap();
        assert_eq!(progress(&mut client).state, "playing");
    });
}

#[test]
fn a_scenario_of_other_gpus_is_refused() {
    isolated(
        &[("NVML_SIM_PROFILE", "a100"), ("NVML_SIM_GPUS", "4")],
        || {
            let _lib = initialised();
            let story = scenario::read(&file(STORY)).unwrap();
            let refused = client().play(story, 1.0, true).unwrap_err().to_string();
            for word in [
                "8 GPUs of profile h100",
                "4 of a100",
                "NVML_SIM_PROFILE=h100",
            ] {
                assert!(refused.contains(word), "{refused}");
            }
        },
    );
}

#[test]
fn it_plays_from_the_start_by_the_environment() {
    let nvlink_flap = shipped().join("nvlink-flap.yaml");
    let environment = [
        ("NVML_SIM_SCENARIO", nvlink_flap.to_str().unwrap()),
        ("NVML_SIM_SPEED", "0"),
        ("NVML_SIM_KMSG", "$FOLDER/kmsg"),
        ("NVML_SIM_KMSG_FORMAT", "records"),
    ];
    isolated(&environment, || {
        let log = folder().join("kmsg");
        fs::write(&log, "").unwrap();
        let lib = initialised();
        let mut client = client();
        let status = client.status().unwrap();
        assert_eq!((status.profile.as_str(), status.gpus.len()), ("gb200", 4));
        assert_eq!(status.scenario.unwrap().name, "nvlink-flap");
        let _set = listening(&lib, XID);
        client.advance(Duration::ZERO).unwrap();
        assert_eq!(client.status().unwrap().gpus[0].nvlinks_down, 1);
        client.advance(Duration::from_secs(2)).unwrap();
        assert_eq!(client.status().unwrap().gpus[0].nvlinks_down, 0);
        client.advance(Duration::from_secs(20)).unwrap();
        let lines = fs::read_to_string(&log).unwrap();
        let starts: Vec<_> = lines
            .lines()
            .map(|line| line.split(';').next().unwrap())
            .collect();
        // Priority, sequence, microseconds of the simulator's clock.
        assert_eq!(starts, ["4,0,0,-", "4,1,22000000,-"]);
    });
}

#[test]
fn a_refused_file_is_one_line_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.yaml");
    fs::write(
        &path,
        "profile: h100\ngpus: 8\nsteps:\n  - do:\n      - lost: {gpu: 9}\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let why_not = |kmsg: &str| {
        let environment = [("NVML_SIM_SCENARIO", path), ("NVML_SIM_KMSG", kmsg)];
        let stderr = crate::process::run("scenarios::starts_in_vain", &environment);
        let mut lines = stderr.lines();
        lines
            .find(|line| line.starts_with("nvml-sim:"))
            .unwrap()
            .to_owned()
    };
    let line = why_not("");
    assert!(
        line.contains(&format!("{path}:5: do: lost: no GPU 9")),
        "{line}"
    );
    // Right, but for what the node has.
    let text = "profile: h100\ngpus: 8\nsteps:\n  - do:\n      - kmsg: {lines: [words]}\n";
    fs::write(path, text).unwrap();
    let line = why_not("");
    assert!(
        line.contains("line 4") && line.contains("NVML_SIM_KMSG"),
        "{line}"
    );
}

#[test]
fn starts_in_vain() {
    isolated(&[("NVML_SIM_GPUS", "0")], || {
        let lib = crate::process::load();
        // Nor is it half started.
        assert_eq!([(); 2].map(|()| nvml!(lib.nvmlInit_v2())), [999, 999]);
    });
}

fn play_to_the_end(name: &str) {
    let path = shipped().join(format!("{name}.yaml"));
    let lib = initialised();
    let _set = listening(&lib, XID);
    let mut client = client();
    let scenario = scenario::read(&path).unwrap();
    let steps = scenario.steps.len();
    client.play(scenario, 0.0, false).unwrap();
    client.advance(HOUR).unwrap();
    // A user that goes away when the driver is to be upgraded.
    nvml!(lib.nvmlShutdown());
    for _ in 0..steps {
        client.advance(HOUR).unwrap();
    }
    let end = progress(&mut client);
    assert_eq!((end.state.as_str(), end.done), ("played", steps), "{name}");
}

macro_rules! shipped_scenarios {
    ($($test:ident: $name:literal on $profile:literal;)*) => {
        const SHIPPED: &[(&str, &str)] = &[$(($name, $profile)),*];
        $(
            #[test]
            fn $test() {
                let environment = [("NVML_SIM_PROFILE", $profile), ("NVML_SIM_KMSG", "$FOLDER/kmsg")];
                isolated(&environment, || {
                    fs::write(folder().join("kmsg"), "").unwrap();
                    play_to_the_end($name);
                });
            }
        )*
    };
}

shipped_scenarios! {
    off_the_bus_under_load_plays: "off-the-bus-under-load" on "h100";
    row_remap_failure_plays: "row-remap-failure" on "a100";
    xid_45_storm_plays: "xid-45-storm" on "b200";
    nvlink_flap_plays: "nvlink-flap" on "gb200";
    driver_upgrade_in_flight_plays: "driver-upgrade-in-flight" on "h100";
    mig_reconfiguration_plays: "mig-reconfiguration" on "h100";
}

#[test]
fn every_scenario_that_ships_is_played_and_names_its_report() {
    let files = scenario::shipped(&shipped()).unwrap();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    let mut played: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
    played.sort_unstable();
    assert_eq!(names, played);
    for (name, path) in &files {
        let text = fs::read_to_string(path).unwrap();
        let head: Vec<_> = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect();
        let head = head.join("\n");
        assert!(
            head.contains("Follows ") && head.contains("Invented: "),
            "{name}"
        );
        assert!(
            head.contains(" issue ") || head.contains(" pull request "),
            "{name}"
        );
        let scenario = scenario::read(path).unwrap();
        assert!(Profile::named(&scenario.profile).is_some());
    }
}
