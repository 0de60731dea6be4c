//! What Pod Security says of the daemon's pod and of the test's, at each level.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::helm::RELEASE;
use crate::matrix::MATRIX;
use crate::release::Release;
use crate::shared::cluster;

/// What a level refuses a pod for: reasons without their particulars, and the volumes that it names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Objections {
    reasons: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

/// The reason for the volumes of a node, as the levels put it.
const BASELINE: &str = "hostPath volumes";
const RESTRICTED: &str = "restricted volume types";

impl Objections {
    /// From `… violates PodSecurity "LEVEL:latest": REASON (PARTICULARS), REASON (PARTICULARS)`.
    fn parse(words: &str) -> Result<Self> {
        let (_, rest) = words
            .split_once("violates PodSecurity ")
            .with_context(|| format!("another refusal: {words}"))?;
        let (_, list) = rest.split_once(": ").context("no list")?;
        let mut objections = Self::default();
        let (mut depth, mut reason, mut particulars) = (0, String::new(), String::new());
        for letter in list.trim().chars().chain([',']) {
            match letter {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 => {
                    let reason = std::mem::take(&mut reason);
                    let particulars = std::mem::take(&mut particulars);
                    let reason = reason.trim().to_owned();
                    if reason == BASELINE || reason == RESTRICTED {
                        let volumes = particulars.split(" use").next();
                        let names = volumes.unwrap_or_default().split('"').skip(1).step_by(2);
                        objections.volumes.extend(names.map(str::to_owned));
                    }
                    objections.reasons.insert(reason);
                }
                letter if depth == 0 => reason.push(letter),
                letter => particulars.push(letter),
            }
        }
        ensure!(depth == 0, "{words}");
        Ok(objections)
    }

    fn new(reasons: &[&str], volumes: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            reasons: owned(reasons),
            volumes: owned(volumes),
        }
    }
}

/// None: the pod is taken.
fn objections(release: &Release, pod: &Value) -> Result<Objections> {
    match release.asked(std::slice::from_ref(pod))? {
        Ok(_) => Ok(Objections::default()),
        Err(words) => Objections::parse(&words),
    }
}

#[test]
fn the_words_of_a_refusal_are_read() -> Result<()> {
    let words = r#"Error from server (Forbidden): pods "x" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add), restricted volume types (volumes "socket", "state" use restricted volume type "hostPath"), runAsUser=0 (container "a" must not set runAsUser=0)"#;
    let expected = Objections::new(
        &["unrestricted capabilities", RESTRICTED, "runAsUser=0"],
        &["socket", "state"],
    );
    ensure!(Objections::parse(words)? == expected);
    ensure!(Objections::parse("quota exceeded").is_err());
    Ok(())
}

/// The README's section on what the chart does to a node, by the server's own words.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn each_level_objects_to_what_the_readme_says() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let new = |name: &str, level: &str| Release::new(cluster.clone(), name, level);
    let privileged = new("pods-privileged", "privileged")?;
    let baseline = new("pods-baseline", "baseline")?;
    let restricted = new("pods-restricted", "restricted")?;
    let both = ["socket", "state"];
    let init = [
        RESTRICTED,
        "runAsNonRoot != true",
        "runAsUser=0",
        "unrestricted capabilities",
    ];
    let root = [
        RESTRICTED,
        "allowPrivilegeEscalation != false",
        "privileged",
        "runAsNonRoot != true",
        "runAsUser=0",
        "unrestricted capabilities",
    ];
    let with_log = ["kmsg", "socket", "state"];
    for (values, by_baseline, by_restricted) in [
        (
            "{}",
            Objections::new(&[BASELINE], &both),
            Objections::new(&init, &both),
        ),
        (
            "ownDirectories: false",
            Objections::new(&[BASELINE], &both),
            Objections::new(&[RESTRICTED], &both),
        ),
        (
            "{ownDirectories: false, state: {type: memory}}",
            Objections::new(&[BASELINE], &["socket"]),
            Objections::new(&[RESTRICTED], &["socket"]),
        ),
        (
            "{ownDirectories: false, kernelLog: {enabled: true}}",
            Objections::new(&[BASELINE, "privileged"], &with_log),
            Objections::new(&root, &with_log),
        ),
    ] {
        for (release, expected) in [
            (&privileged, &Objections::default()),
            (&baseline, &by_baseline),
            (&restricted, &by_restricted),
        ] {
            // A DaemonSet is no pod: every level takes it, and its pods would never come.
            release.done(&["upgrade", "--install", RELEASE, "CHART"], values)?;
            let found = objections(release, &release.pod()?)?;
            ensure!(
                found == *expected,
                "{values} in {}: {found:?}",
                release.namespace
            );
        }
    }
    Ok(())
}

/// Where the directories are the administrator's, in every case: the volumes of the node, and nothing else.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn a_restricted_namespace_objects_to_volumes_of_the_node_alone() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let release = Release::new(cluster, "matrix-restricted", "restricted")?;
    let cases = MATRIX
        .iter()
        .filter(|(_, values)| !values.contains("kernelLog"));
    let mut tried = 0;
    for (case, values) in cases {
        let objects = release
            .cluster
            .rendered(values, &["--set", "ownDirectories=false"])?;
        for object in &objects {
            let mut pod = match object["kind"].as_str() {
                Some("DaemonSet") => object["spec"]["template"].clone(),
                Some("Pod") => object.clone(),
                _ => continue,
            };
            pod["apiVersion"] = "v1".into();
            pod["kind"] = "Pod".into();
            pod["metadata"]["name"] = "it".into();
            pod["metadata"]["namespace"] = release.namespace.clone().into();
            // Whose pod it is does not count, and the case's own account is not here.
            pod["spec"]["serviceAccountName"] = "default".into();
            let volumes = pod["spec"]["volumes"].as_array().context("no volumes")?;
            let of_the_node = volumes
                .iter()
                .filter(|volume| !volume["hostPath"].is_null());
            let names: Vec<_> = of_the_node
                .filter_map(|volume| volume["name"].as_str())
                .collect();
            let found = objections(&release, &pod)?;
            let expected = Objections::new(&[RESTRICTED], &names);
            ensure!(found == expected, "{case}, {}: {found:?}", object["kind"]);
            tried += 1;
        }
    }
    ensure!(tried > MATRIX.len(), "{tried} pods");
    Ok(())
}
