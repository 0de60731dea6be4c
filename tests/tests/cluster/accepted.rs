//! The server takes every kind of every case of the matrix, with no field that it does not know and no warning.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::helm::NAMESPACE;
use crate::matrix::MATRIX;
use crate::shared::cluster;

const DRY: [&str; 2] = ["create", "--dry-run=server"];

#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn every_kind_of_every_case_is_accepted_and_no_other() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    cluster.namespace(NAMESPACE, "privileged")?;
    let mut kinds = BTreeSet::new();
    for (case, values) in MATRIX {
        let objects = cluster.rendered(values, &[])?;
        let answer = cluster.send(&DRY, &objects)?;
        answer.map_err(|why| anyhow::anyhow!("{case}: {why}"))?;
        kinds.extend(objects.iter().map(|object| object["kind"].to_string()));
    }
    // No Role and no binding: nothing of ours asks the API server.
    let expected = [
        "ConfigMap",
        "DaemonSet",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    ];
    let expected: BTreeSet<_> = expected.iter().map(|kind| format!("{kind:?}")).collect();
    ensure!(kinds == expected, "the matrix shows {kinds:?}");
    Ok(())
}

/// What the test above would miss without: a server that lets anything pass.
#[test]
#[ignore = "needs an API server: cargo xtask e2e"]
fn what_is_wrong_is_refused_by_kind_and_field() -> Result<()> {
    let Some(cluster) = cluster()? else {
        return Ok(());
    };
    let operator = "monitoring.coreos.com/v1";
    for (object, words) in [
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
                "spec": {"clusterIp": "None", "ports": [{"port": 1}]}}),
            "unknown field \"spec.clusterIp\"",
        ),
        (
            json!({"apiVersion": operator, "kind": "ServiceMonitor", "metadata": {"name": "a"},
                "spec": {"selector": {}, "endpoints": [{"interval": "soon"}]}}),
            "spec.endpoints[0].interval",
        ),
        (
            json!({"apiVersion": operator, "kind": "PrometheusRule", "metadata": {"name": "a"},
                "spec": {"groups": [{"name": "a", "rules": [{"alert": "a", "exr": "1", "expr": 1}]}]}}),
            "unknown field \"spec.groups[0].rules[0].exr\"",
        ),
    ] {
        let why = cluster.send(&DRY, std::slice::from_ref(&object))?.err();
        ensure!(
            why.as_ref().is_some_and(|why| why.contains(words)),
            "{object}: {why:?} lacks {words}"
        );
    }
    Ok(())
}
