use std::time::Duration;

use super::*;

fn read(text: &str) -> Result<Vec<Listed>, Refusal> {
    parse(text, &Limits::default())
}

#[test]
fn h7_every_key_is_read() {
    let text = "
policies:
  - name: xid-policy
    file: xid-policy.wasm
    sha256: 'E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855'
    mode: shadow
    fallback: unhealthy
    grants: [xid-79, gpu-lost, xid-79]
    limits:
      call-deadline: 20ms
      memory-bytes-max: 32MiB
      tables-max: 7
    config:
      ignored: [43, 45]
      profile: eks
  - name: nvml-health
";
    let listed = read(text).unwrap();
    let first = &listed[0];
    assert_eq!((&*first.name, first.line), ("xid-policy", 3));
    assert_eq!(first.file.as_deref(), Some("xid-policy.wasm"));
    assert!(first.sha256.as_deref().unwrap().starts_with("e3b0c442"));
    assert_eq!(first.mode, Mode::Shadow);
    assert_eq!(first.terms.fallback, Fallback::Unhealthy);
    let grants: Vec<&str> = first.terms.grants.iter().map(|grant| &*grant.0).collect();
    assert_eq!(grants, ["gpu-lost", "xid-79"]);
    assert_eq!(first.limits.call_deadline, Duration::from_millis(20));
    assert_eq!(first.limits.memory_bytes_max, 32 << 20);
    assert_eq!(first.limits.tables_max, 7);
    assert_eq!(first.config, r#"{"ignored":[43,45],"profile":"eks"}"#);
    let second = &listed[1];
    assert_eq!((second.file.as_deref(), second.config.as_str()), (None, ""));
    assert_eq!(
        (second.mode, &second.terms),
        (Mode::Enforce, &Terms::default())
    );
    assert_eq!(second.limits, Limits::default());
}

#[test]
fn h7_a_file_that_lists_nothing_says_so_and_an_emptied_one_is_refused() {
    assert_eq!(read("policies: []\n"), Ok(vec![]));
    for text in [
        "",
        " \n",
        "# nothing\n",
        "---\n",
        "{}",
        "~",
        "null",
        "policies:",
        "policies: ~\n",
    ] {
        refused_file(
            text,
            &["no list of policies", "`policies: []`", "remove the file"],
        );
    }
}

/// One entry with this line in it is refused with these words, on one line.
#[track_caller]
fn refused(line: &str, words: &[&str]) {
    let text = format!("policies:\n  - name: a\n    {line}\n");
    refused_file(&text, words);
}

#[track_caller]
fn refused_file(text: &str, words: &[&str]) {
    let Refusal(why) = read(text).expect_err(text);
    assert_eq!(why.lines().count(), 1, "{why:?}");
    for word in words {
        assert!(why.contains(word), "{why:?} lacks {word:?}");
    }
}

#[test]
fn h7_a_refusal_names_the_line_and_the_field() {
    refused("mood: enforce", &["line 3", "mood"]);
    refused(
        "mode: watch",
        &["line 3", "policies[0].mode", "enforce, shadow, paused"],
    );
    refused(
        "fallback: healthy",
        &["line 3", "fallback", "catalogue, unhealthy, ignore"],
    );
    refused(
        "grants: [xid-13]",
        &["line 3", "grants", "xid-13", "xid-79"],
    );
    refused("sha256: abc", &["line 3", "sha256", "64"]);
    refused("file: ../x.wasm", &["line 3", "file", "../x.wasm"]);
    refused("file: .x.wasm", &["line 3", "file"]);
    refused("file: x.bin", &["line 3", "x.bin", "does not end in .wasm"]);
    refused(
        "limits: {fuel: 7}",
        &["line 3", "limits.fuel", "call-deadline"],
    );
    refused(
        "limits: {memory-bytes-max: 8GiB}",
        &["line 3", "memory-bytes-max", "set it to between"],
    );
    refused(
        "limits: {call-deadline: 5 parsecs}",
        &["line 3", "call-deadline", "parsecs"],
    );
    refused("limits: {call-deadline: 0ms}", &["line 3", "call-deadline"]);
}

#[test]
fn h7_what_is_no_list_of_policies_is_refused() {
    refused_file("policies:\n  - file: a.wasm\n", &["name"]);
    refused_file("policy: []\n", &["policy", "line 1"]);
    refused_file("policies: [a]\n", &["line 1"]);
    refused_file("policies: [\n", &["line"]);
    refused_file(
        "policies:\n  - name: a\n  - name: b\n  - name: a\n",
        &["line 4", "policies[2].name", "\"a\"", "line 2"],
    );
    refused_file(
        "policies:\n  - name: 'a b'\n",
        &["line 2", "policies[0].name"],
    );
    let many: String = (0..=POLICIES_MAX)
        .map(|at| format!("  - name: p{at}\n"))
        .collect();
    refused_file(
        &format!("policies:\n{many}"),
        &["line 2", "policies", "17 entries", "at most 16"],
    );
    refused_file(&" ".repeat(FILE_BYTES_MAX + 1), &["right file"]);
}
