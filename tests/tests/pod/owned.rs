//! The init container: root, with one capability.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::release::Release;

#[test]
fn chown_and_nothing_else_gives_the_directories_away() -> Result<()> {
    let Some(mut release) = Release::install("")? else {
        return Ok(());
    };
    let init = release.pod["initContainers"][0].clone();
    let mut less = init.clone();
    less["securityContext"]["capabilities"]["add"] = json!([]);
    let (status, said) = release.machine.start(&release.pod, &less)?.end()?;
    ensure!(status.code() != Some(0), "it needs none?");
    ensure!(said.contains("this needs root with CAP_CHOWN"), "{said}");
    // And it is no harm to run it again, as each pod of the node does.
    for _ in 0..2 {
        let (status, said) = release.machine.start(&release.pod, &init)?.end()?;
        ensure!(status.success(), "{status}\n{said}");
        for (path, mode) in [
            ("/var/run/device-api", 0o750),
            ("/var/lib/device-api", 0o700),
        ] {
            let found = fs::metadata(release.machine.path(path))?;
            let found = (found.uid(), found.gid(), found.mode() & 0o7777);
            ensure!(found == (65534, 65534, mode), "{path}: {found:?}");
        }
    }
    Ok(())
}
