use std::collections::BTreeSet;

use clap::Subcommand;

use super::*;

fn refused(text: &str, line: u64, words: &[&str]) {
    let (at, reason) = parse("test", text).unwrap_err();
    assert_eq!(at, line, "{reason}");
    for word in words {
        assert!(reason.contains(word), "{reason} has no {word}");
    }
}

/// A step's commands, in a file that is right otherwise; they start on line 5.
fn refused_command(command: &str, words: &[&str]) {
    let text = format!("profile: h100\ngpus: 8\nsteps:\n  - do:\n      - {command}\n");
    refused(&text, 5, words);
}

#[test]
fn a_file_is_read_in_order_and_with_its_lines() {
    let text = "
profile: a100
gpus: 2
steps:
  - when: initialised
    do:
      - unload
  - at: 1.5s
    do:
      - load
      - xid: { gpu: 1, codes: [79] }
  - after: 200ms
    do: [ { set: { gpu: 0, readings: { utilization.gpu: 90 } } } ]
  - when: { call: nvmlDeviceGetTemperature, gpu: 1 }
    do: []
";
    let scenario = parse("test", text).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.gpus), ("test", 2));
    let whens: Vec<_> = scenario
        .steps
        .iter()
        .map(|step| step.when.clone())
        .collect();
    let call = "nvmlDeviceGetTemperature".to_owned();
    let expected = [
        When::Initialised,
        When::At(1500),
        When::After(200),
        When::Call { call, gpu: Some(1) },
    ];
    assert_eq!(whens, expected);
    let lines: Vec<_> = scenario.steps.iter().map(|step| step.line).collect();
    assert_eq!(lines, [5, 8, 12, 14]);
    assert_eq!(scenario.steps[1].commands.len(), 2);
    // As it goes over the socket.
    let json = serde_json::to_string(&scenario).unwrap();
    assert_eq!(serde_json::from_str::<Scenario>(&json).unwrap(), scenario);
}

#[test]
fn a_refusal_names_line_and_key() {
    refused(
        "profile: rtx\ngpus: 8\nsteps: []\n",
        1,
        &["profile", "rtx", "gb200"],
    );
    refused(
        "profile: h100\ngpus: 65\nsteps: []\n",
        2,
        &["gpus", "1 to 64"],
    );
    refused("profile: h100\nsteps: []\n", 2, &["missing field `gpus`"]);
    refused("profile: h100\ngpus: 8\nstepz: []\n", 3, &["stepz"]);
    let steps = |steps: &str| format!("profile: h100\ngpus: 8\nsteps:\n{steps}");
    refused(
        &steps("  - at: soon\n    do: []\n"),
        4,
        &["at", "soon", "1.5s"],
    );
    refused(
        &steps("  - at: 1s\n    after: 1s\n    do: []\n"),
        4,
        &["one of them"],
    );
    refused(
        &steps("  - at: 2s\n    do: []\n  - at: 1s\n    do: []\n"),
        6,
        &["at: 1000 ms is before"],
    );
    refused(
        &steps("  - when: later\n    do: []\n"),
        4,
        &["when", "listening"],
    );
    refused(
        &steps("  - when: {call: nvmlNo}\n    do: []\n"),
        4,
        &["when", "nvmlNo"],
    );
    refused(&steps("  - at: 25h\n    do: []\n"), 4, &["a day at most"]);
    refused(&" ".repeat(FILE_BYTES_MAX + 1), 1, &["right file"]);
    let many = "  - do: []\n".repeat(STEPS_MAX + 1);
    refused(&steps(&many), 1, &["1001", "at most 1000"]);
}

#[test]
fn a_command_is_refused_before_anything_is_played() {
    refused_command("explode: {gpu: 0}", &["do", "explode", "unknown variant"]);
    refused_command(
        "xid: {gpu: 0, code: [79]}",
        &["xid", "unknown field `code`"],
    );
    refused_command("xid: {codes: [79]}", &["xid", "missing field `gpu`"]);
    refused_command("unload: {gpu: 0}", &["unload", "unknown field `gpu`"]);
    refused_command("lost: {gpu: 8}", &["lost", "0 to 7"]);
    refused_command("lost: 3", &["lost", "write {gpu: 0}"]);
    refused_command("{lost: {gpu: 1}, found: {gpu: 1}}", &["one name"]);
    refused_command("status", &["status", "not in a scenario"]);
    refused_command("advance: {ms: 1}", &["advance", "not in a scenario"]);
    refused_command(
        "set: {gpu: 0, readings: {mood: 1}}",
        &["set", "mood", "power.draw"],
    );
    refused_command(
        "mig-create: {gpu: 0, profiles: [1g.10gb]}",
        &["mig-create", "MIG mode is off"],
    );
    refused_command("kmsg: {lines: ['{pci}']}", &["kmsg", "give a gpu"]);
    refused_command("driver: {version: 590.1}", &["driver", "invalid type"]);
    refused_command("driver: {version: '590.1'}", &["driver", "unload it"]);
}

/// The published schema has the parser's commands, their arguments and its bounds.
#[test]
fn the_schema_says_what_the_parser_takes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/schemas/nvml-sim-scenario.schema.json"
    );
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let properties = &schema["properties"];
    let keys: Vec<_> = Profile::all()
        .iter()
        .map(|profile| profile.key.as_str())
        .collect();
    assert_eq!(properties["profile"]["enum"], serde_json::json!(keys));
    assert_eq!(properties["gpus"]["maximum"], GPUS_MAX);
    assert_eq!(properties["steps"]["maxItems"], STEPS_MAX);

    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let (_, refusal) =
        parse("test", "profile: h100\ngpus: 1\nsteps: [{x: 1, do: []}]").unwrap_err();
    for key in names(&schema["$defs"]["step"]["properties"]) {
        assert!(refusal.contains(&key), "{refusal} has no {key}");
    }
    let described = &schema["$defs"]["command"]["oneOf"][1]["properties"];
    let cli = Request::augment_subcommands(clap::Command::new("test"));
    let mut commands = BTreeSet::new();
    for command in cli.get_subcommands() {
        let name = command.get_name();
        if ["advance", "stop", "status"].contains(&name) {
            continue;
        }
        commands.insert(name.to_owned());
        let arguments = command
            .get_arguments()
            .map(|argument| argument.get_id().as_str());
        let arguments: BTreeSet<_> = arguments.map(|id| id.replace('_', "-")).collect();
        assert_eq!(names(&described[name]["properties"]), arguments, "{name}");
    }
    assert_eq!(names(described), commands);
}
