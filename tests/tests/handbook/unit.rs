//! The unit of systemd, its drop-in, its user and its settings: what systemd says of them, where it is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use device_api_tests::tools::{root, skip, works};
use device_api_tests::{binary, markdown};

use crate::daemon::objection;

const UNIT: &str = "device-api-server.service";

/// Of ten, by `systemd-analyze security`: what it has is sockets, the network (metrics are scraped) and the GPUs.
const EXPOSURE_MAX: &str = "20";
/// With the kernel's log besides.
const EXPOSURE_WITH_LOG_MAX: &str = "24";

fn packaging() -> Result<PathBuf> {
    Ok(root()?.join("packaging/systemd"))
}

/// The unit as it is installed, but for the program's place.
fn installed(folder: &Path, with_log: bool) -> Result<PathBuf> {
    let unit = fs::read_to_string(packaging()?.join(UNIT))?;
    let program = binary("device-api-server")?.display().to_string();
    let moved = unit.replace("/usr/bin/device-api-server", &program);
    ensure!(
        moved != unit,
        "{UNIT} does not start /usr/bin/device-api-server"
    );
    let path = folder.join(UNIT);
    fs::write(&path, moved)?;
    if with_log {
        let dropins = folder.join(format!("{UNIT}.d"));
        fs::create_dir_all(&dropins)?;
        fs::copy(
            packaging()?.join("kernel-log.conf"),
            dropins.join("kernel-log.conf"),
        )?;
    }
    Ok(path)
}

#[test]
fn systemd_understands_the_unit_and_finds_it_shut_in() -> Result<()> {
    if let Err(why) = works(Command::new("systemd-analyze").arg("--version")) {
        skip::<()>(&format!("no systemd-analyze: {why}"))?;
        return Ok(());
    }
    for (with_log, exposure) in [(false, EXPOSURE_MAX), (true, EXPOSURE_WITH_LOG_MAX)] {
        let folder = tempfile::tempdir()?;
        let unit = installed(folder.path(), with_log)?;
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&unit)
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // It warns of what it does not understand, and calls that a success.
        let ours: Vec<_> = told
            .lines()
            .filter(|line| line.contains("device-api"))
            .collect();
        ensure!(output.status.success() && ours.is_empty(), "{told}");
        let output = Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true"])
            .arg(format!("--threshold={exposure}"))
            .arg(&unit)
            .output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "with_log {with_log}: {told}");
    }
    Ok(())
}

#[test]
fn systemd_would_make_the_user() -> Result<()> {
    let users = packaging()?.join("device-api.sysusers.conf");
    if let Err(why) = works(Command::new("systemd-sysusers").arg("--version")) {
        skip::<()>(&format!("no systemd-sysusers: {why}"))?;
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    fs::create_dir(root.path().join("etc"))?;
    let mut sysusers = Command::new("systemd-sysusers");
    sysusers
        .arg("--root")
        .arg(root.path())
        .arg("--dry-run")
        .arg(&users);
    let output = sysusers.output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() && told.contains("Creating user 'device-api'"),
        "{told}"
    );
    Ok(())
}

/// The unit makes what the settings name, for the user that the sysusers file makes.
#[test]
fn unit_and_settings_go_together() -> Result<()> {
    let read =
        |name: &str| fs::read_to_string(packaging()?.join(name)).map_err(anyhow::Error::from);
    let (unit, settings) = (read(UNIT)?, read("device-api-server.yaml")?);
    for (line, setting) in [
        (
            "RuntimeDirectory=device-api",
            "unix-socket: /run/device-api/device.sock",
        ),
        (
            "StateDirectory=device-api",
            "state-dir: /var/lib/device-api",
        ),
        ("User=device-api", ""),
        ("Group=device-api", ""),
        ("ExecReload=/bin/kill -HUP $MAINPID", ""),
        ("RestartPreventExitStatus=2", ""),
    ] {
        ensure!(unit.lines().any(|of| of == line), "{UNIT} lacks {line}");
        ensure!(settings.contains(setting), "no {setting}");
    }
    ensure!(
        read("device-api.sysusers.conf")?.contains("\nu device-api "),
        "no user"
    );
    let settings = packaging()?.join("device-api-server.yaml");
    let arguments = ["--config".to_owned(), settings.display().to_string()];
    ensure!(
        objection(&arguments)?.is_none(),
        "{:?}",
        objection(&arguments)?
    );

    // Each setting that is there to be turned on is one, as it stands.
    let etc = crate::daemon::etc()?;
    let text = fs::read_to_string(&settings)?;
    let all: String = text
        .lines()
        .map(
            |line| match line.strip_prefix("# ").filter(|rest| is_setting(rest)) {
                Some(setting) => format!("{setting}\n"),
                None => format!("{line}\n"),
            },
        )
        .collect();
    ensure!(all != text, "nothing is turned off");
    let file = etc.path().join("all.yaml");
    fs::write(&file, crate::daemon::moved(&all, etc.path()))?;
    let arguments = ["--config".to_owned(), file.display().to_string()];
    ensure!(
        objection(&arguments)?.is_none(),
        "{:?}",
        objection(&arguments)?
    );
    Ok(())
}

fn is_setting(text: &str) -> bool {
    let key = text.split_once(": ").map(|(key, _)| key);
    key.is_some_and(|key| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
    })
}

/// The page installs what is there, file by file.
#[test]
fn the_page_installs_every_file_of_the_packaging() -> Result<()> {
    let documents = markdown::documents()?;
    let page = documents.iter().find(|of| of.name == "docs/install.md");
    let commands = page.map(markdown::Document::commands).transpose()?;
    let commands = commands.unwrap_or_default();
    for entry in fs::read_dir(packaging()?)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_installed = commands
            .iter()
            .any(|of| of.program() == "install" && of.text().contains(&name));
        ensure!(is_installed, "docs/install.md does not install {name}");
    }
    Ok(())
}
