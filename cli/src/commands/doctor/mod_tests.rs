use std::collections::BTreeSet;

use super::*;

fn report() -> Report {
    let checks = vec![
        Check::ok("a.b", "fine"),
        Check::fail("a.longer", "bad\u{1b}[2J", "do this"),
        Check::warn("c", "so so", "or that"),
        Check::skipped("d", "not here"),
        Check::skipped("e", NOT_SAID),
        Check::skipped("f", NOT_SAID),
    ];
    Report {
        version: "1.2.3",
        socket: "/s".to_owned(),
        failed: 1,
        warnings: 1,
        checks,
    }
}

#[test]
fn a_report_says_of_each_check_why_and_what_to_do() {
    let mut out = Vec::new();
    print(&mut out, &report(), false).unwrap();
    let expected = "\
ok       a.b       fine
fail     a.longer  bad\\u{1b}[2J
                   do: do this
warn     c         so so
                   do: or that
skipped  d         not here
skipped  2 more, as the daemon did not say

1 failed, 1 warnings, 1 ok, 3 skipped
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["checks"][1]["state"], "fail");
    assert_eq!(json["checks"][1]["id"], "a.longer");
    assert!(json["checks"][0].get("fix").is_none());
}

#[test]
fn colours_are_of_the_words_alone() {
    let mut out = Vec::new();
    print(&mut out, &report(), true).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\x1b[31mfail\x1b[0m     a.longer"), "{text}");
}

/// Every id that a check of ours has, by its name in the sources.
fn ids() -> BTreeSet<String> {
    let sources = [
        include_str!("daemon.rs"),
        include_str!("driver.rs"),
        include_str!("judged.rs"),
        include_str!("socket.rs"),
        include_str!("store.rs"),
    ];
    let id = |line: &str| {
        let (_, value) = line.strip_prefix("const ")?.split_once(": &str = \"")?;
        let value = value.strip_suffix("\";")?;
        let is_id = value.contains('.')
            && value
                .bytes()
                .all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'-'));
        is_id.then(|| value.to_owned())
    };
    let lines = sources.iter().flat_map(|source| source.lines());
    lines
        .filter_map(id)
        .filter(|id| !id.ends_with(".so.1"))
        .collect()
}

#[test]
fn every_check_is_documented_and_said_to_be_skipped_where_the_daemon_does_not_answer() {
    let documented: BTreeSet<String> = include_str!("../../../../docs/devicectl.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(id, _)| id.to_owned())
        .filter(|id| id.contains('.'))
        .collect();
    let ids = ids();
    assert!(ids.len() > 25, "{ids:?}");
    assert_eq!(documented, ids);
    let mut checks = Vec::new();
    rest(&mut checks);
    let rest: BTreeSet<String> = checks.iter().map(|check| check.id.to_owned()).collect();
    let of_others = |id: &&String| !id.starts_with("socket.");
    assert_eq!(rest, ids.iter().filter(of_others).cloned().collect());
    assert!(checks.iter().all(|check| check.state == State::Skipped));
}
