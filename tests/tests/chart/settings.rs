//! `config` of the chart and the daemon's file are one thing: what the one takes, the other takes.

use std::process::Command;

use anyhow::{Result, ensure};
use device_api_tests::binary;

use crate::helm::Chart;

/// Settings, each a mapping of YAML; that of the chart may need other values beside it, which the daemon's file has not.
const TAKEN: &[(&str, &str)] = &[
    ("{drills: enforce, platform: vm}", ""),
    ("{nvml-poll-interval: 100ms, nvml-stale-after: 1h}", ""),
    ("{nvml-ignored-xids: '43, 45'}", ""),
    ("{nvml-ignored-xids: [43, 45]}", ""),
    ("{nvml-ignored-xids: 43}", ""),
    ("{nvml-library: /opt/lib/libnvidia-ml.so.1}", ""),
    ("{policy-memory: 16777216, policy-deadline: 25ms}", ""),
    ("{policy-memory: 256MiB, policy-deadline: 1000us}", ""),
    (
        "{policy-deadline: 100ms, limits: {barrier-wait: 200ms}}",
        "",
    ),
    (
        "{limits: {gpus: 16384, condition-bytes: 65536, request-time: 10m}}",
        "",
    ),
    ("{limits: {gpus: 7}}", ""),
    (
        "{provider-timeout: ['uid:1001=30s', 'cn:a=b=24h', 'uri:spiffe://x/y=1s']}",
        "",
    ),
    ("{provider-timeout: 'dns:a.example=1h'}", ""),
    (
        "{polarity: ['Site*=true-is-problem', 'a.b/C=true-is-healthy', '*=true-is-healthy']}",
        "",
    ),
    ("{shutdown-timeout: 0s}", ""),
    (
        "{shutdown-timeout: 9m}",
        "terminationGracePeriodSeconds: 600",
    ),
    ("{insecure-tcp: write}", ""),
    (
        "{insecure-tcp: 'off'}",
        "grpc: {address: '0.0.0.0:50051'}\ntls: {enabled: true, secretName: s}",
    ),
    ("{boot-id-file: /proc/sys/kernel/random/boot_id}", ""),
];

const REFUSED: &[&str] = &[
    "{drills: foo}",
    "{platform: 7}",
    "{insecure-tcp: perhaps}",
    "{nvml-stale-after: 7d}",
    "{nvml-stale-after: 7}",
    "{nvml-stale-after: [1s, 2s]}",
    "{nvml-poll-interval: 61s}",
    "{nvml-poll-interval: 99ms}",
    "{nvml-ignored-xids: XID43}",
    "{nvml-ignored-xids: [a]}",
    "{policy-deadline: 1h}",
    "{policy-deadline: 999us}",
    "{policy-memory: 17179869184}",
    "{policy-memory: 1MB}",
    "{limits: {watchs: 1}}",
    "{limits: {watches: 0}}",
    "{limits: {watches: many}}",
    "{limits: {request-time: 500ms}}",
    "{limits: {send-bytes: 1GiB}}",
    "{limits: {}}",
    "{limit: ['watchs=1']}",
    "{polarity: [x=y]}",
    "{polarity: ['a*b*=true-is-healthy']}",
    "{polarity: ['=true-is-healthy']}",
    "{provider-timeout: ['1001=30s']}",
    "{provider-timeout: ['uid:1001']}",
    "{provider-timeout: ['uid:1001=25h']}",
    "{kmsg-drill: true}",
    "{kmsg-drill: perhaps}",
    "{shutdown-timeout: soon}",
    "{shutdown-timeout: 11m}",
    "{policies-file: /nope.yaml}",
    "{helth-port: 1}",
];

/// What the daemon says against a configuration file, where it does.
pub(crate) fn objection(file: &str) -> Result<Option<String>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("device-api-server.yaml");
    std::fs::write(&path, file)?;
    let mut daemon = Command::new(binary("device-api-server")?);
    daemon.env_clear().args(["--check-config", "--config"]);
    daemon.arg(&path);
    // It has to be there, and in the pod it is.
    if file.contains("\npolicy-dir:") {
        daemon.arg("--policy-dir").arg(folder.path());
    }
    let output = daemon.output()?;
    let said = String::from_utf8(output.stderr)?;
    match output.status.code() {
        Some(0) => Ok(None),
        Some(2) => Ok(Some(said)),
        other => anyhow::bail!("{other:?}: {said}"),
    }
}

#[test]
fn the_chart_takes_the_settings_that_the_daemon_takes() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for (settings, besides) in TAKEN {
        let rendered = chart.rendered(&format!("config: {settings}\n{besides}\n"))?;
        // In the pod the certificate's files are there, and nobody looks at them here.
        let against = objection(rendered.configuration()?)?;
        ensure!(against.is_none(), "{settings}: {against:?}");
    }
    Ok(())
}

#[test]
fn the_chart_refuses_the_settings_that_the_daemon_refuses() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for settings in REFUSED {
        ensure!(
            objection(settings)?.is_some(),
            "the daemon takes {settings}"
        );
        let values = format!("{{config: {settings}, terminationGracePeriodSeconds: 600}}");
        let answer = chart.template(&values, &[])?;
        let why = answer.err().unwrap_or_default();
        let key = settings.trim_start_matches('{');
        let key = key.split(':').next().unwrap_or_default();
        ensure!(
            why.contains(key) && why.contains("config"),
            "{settings}: the chart takes it, or does not say where: {why}"
        );
    }
    Ok(())
}
