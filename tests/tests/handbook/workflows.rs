//! The workflows: actionlint takes them, what they use is pinned, they hold no secret, and what they run is what
//! developers run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::{root, skip, works};
use serde_json::Value;

const FOLDER: &str = ".github/workflows";
/// Where the forge's runner has it not on the path.
const ACTIONLINT: &str = "DEVICE_API_ACTIONLINT";

/// All of them: path, and text.
fn workflows() -> Result<Vec<(PathBuf, String)>> {
    let mut workflows = Vec::new();
    for entry in fs::read_dir(root()?.join(FOLDER))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        workflows.push((path, text));
    }
    ensure!(workflows.len() >= 2, "{} workflows", workflows.len());
    Ok(workflows)
}

#[test]
fn actionlint_has_nothing_against_them() -> Result<()> {
    let actionlint = std::env::var_os(ACTIONLINT).map_or("actionlint".into(), PathBuf::from);
    if let Err(why) = works(Command::new(&actionlint).arg("-version")) {
        skip::<()>(&format!(
            "no actionlint on the path or in {ACTIONLINT}: {why}"
        ))?;
        return Ok(());
    }
    for (path, _) in workflows()? {
        // Other linters, where they are there, would have it fail on one machine and pass on the next.
        let mut lint = Command::new(&actionlint);
        lint.args(["-no-color", "-shellcheck=", "-pyflakes="])
            .arg(&path)
            .current_dir(root()?);
        let output = lint.output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{}: {told}", path.display());
    }
    Ok(())
}

/// What is wrong with a line that uses an action; `None`: nothing. Ours lie beneath `root`; others' are pinned by the
/// digest of a commit, since a tag may be moved, and say for people which version that is.
fn objection(line: &str, root: &Path) -> Option<String> {
    let (_, used) = line.split_once("uses:")?;
    let used = used.trim();
    if let Some(ours) = used.strip_prefix("./") {
        return (!root.join(ours).is_file()).then(|| format!("no {ours}"));
    }
    let parts = used.split_once(" # v").map(|(name, version)| {
        let digest = name.split_once('@').map_or("", |(_, digest)| digest);
        let is_digest = digest.len() == 40 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest && version.starts_with(|c: char| c.is_ascii_digit())
    });
    (parts != Some(true)).then(|| format!("{used}: write OWNER/NAME@DIGEST-OF-40 # vVERSION"))
}

#[test]
fn every_action_is_pinned_by_its_digest() -> Result<()> {
    let root = root()?;
    let mut tried = 0;
    for (path, text) in workflows()? {
        for line in text.lines().filter(|line| line.contains("uses:")) {
            let why = objection(line, &root);
            ensure!(why.is_none(), "{}: {why:?}", path.display());
            tried += 1;
        }
    }
    ensure!(tried > 4, "{tried} actions found: is this test blind?");
    for wrong in [
        "- uses: actions/checkout@v7",
        "- uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",
        "- uses: actions/checkout@3d3c42e # v7.0.1",
        "uses: ./.github/workflows/nothing.yml",
    ] {
        ensure!(objection(wrong, &root).is_some(), "{wrong} is taken");
    }
    Ok(())
}

/// The run's own token ends with it; any other secret outlives it, and is one to lose.
#[test]
fn no_workflow_holds_a_secret() -> Result<()> {
    for (path, text) in workflows()? {
        let text = text.to_lowercase().replace("secrets.github_token", "");
        for words in ["secrets.", "secrets[", "secrets:", "pull_request_target"] {
            ensure!(!text.contains(words), "{}: {words}", path.display());
        }
        let workflow: Value = serde_saphyr::from_str(&text)?;
        ensure!(
            workflow["permissions"] == serde_json::json!({"contents": "read"}),
            "{}: a job that needs more than to read says so itself",
            path.display()
        );
    }
    Ok(())
}

/// Whatever is compiled runs other people's build scripts; the job that signs and releases has none of them beside it.
#[test]
fn who_may_sign_compiles_nothing() -> Result<()> {
    let mut signing = 0;
    for (path, text) in workflows()? {
        let workflow: Value = serde_saphyr::from_str(&text)?;
        for (name, job) in workflow["jobs"].as_object().context("no jobs")? {
            if job["permissions"]["id-token"] != "write" {
                continue;
            }
            signing += 1;
            let steps = job["steps"].as_array().context("no steps")?;
            let mut lines = steps.iter().filter_map(|step| step["run"].as_str());
            let compiles = lines.any(|run| {
                ["cargo ", "go ", "npm ", "pip "]
                    .iter()
                    .any(|of| run.contains(of))
            });
            ensure!(!compiles, "{}: {name} compiles", path.display());
        }
    }
    ensure!(signing > 0, "nobody signs");
    Ok(())
}

/// What is tested there is what is tested before a change lands, with nothing skipped; and before a release.
#[test]
fn the_tests_are_those_of_ci_run_and_come_before_a_release() -> Result<()> {
    let read = |name: &str| -> Result<Value> {
        let text = fs::read_to_string(root()?.join(FOLDER).join(name))?;
        serde_saphyr::from_str(&text).with_context(|| name.to_owned())
    };
    let (test, release) = (read("test.yml")?, read("release.yml")?);
    let job = &test["jobs"]["test"];
    let steps = job["steps"].as_array().context("no steps")?;
    let runs = |words: &str| {
        let run = steps.iter().filter_map(|step| step["run"].as_str());
        run.flat_map(str::lines).any(|line| line.ends_with(words))
    };
    ensure!(runs(".ci/run"), "test.yml does not run .ci/run");
    ensure!(
        job["env"]["DEVICE_API_REQUIRE_TOOLCHAINS"] == "1",
        "test.yml lets tests be skipped"
    );
    let machines = serde_json::json!(["ubuntu-24.04", "ubuntu-24.04-arm"]);
    for job in ["test", "image"] {
        let found = &test["jobs"][job]["strategy"]["matrix"]["runner"];
        ensure!(*found == machines, "{job}: {found}");
    }
    ensure!(release["jobs"]["test"]["uses"] == "./.github/workflows/test.yml");
    let needs = release["jobs"]["build"]["needs"].as_array();
    ensure!(needs.is_some_and(|needs| needs.contains(&"test".into())));
    Ok(())
}
