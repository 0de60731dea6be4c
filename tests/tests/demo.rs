//! The README's first command, as far as it goes without building: the demo checks every outcome.

use std::process::Command;

use anyhow::Result;
use device_api_tests::binary;

#[test]
fn the_demo_tells_its_story_once_and_every_outcome_is_right() -> Result<()> {
    let output = Command::new(binary("demo")?).arg("--once").output()?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}: {err}\n{out}", output.status);
    for words in [
        "XID 31",
        "XID 79",
        "RESTART_BM",
        "kernel log",
        "Every outcome was as it should be.",
    ] {
        assert!(out.contains(words), "no {words:?} in\n{out}");
    }
    Ok(())
}
