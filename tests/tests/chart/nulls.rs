//! `null` for a value, which to Helm is a value that is not there: as if it were empty, or refused with its path.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::helm::{Answer, Chart};
use crate::readme;
use crate::schemas::objections;
use crate::settings::objection;

/// What a template of Go says, or leaves behind, of a value that it did not reckon with.
const OF_GO: [&str; 8] = [
    "wrong type",
    "nil pointer",
    "interface {}",
    "error calling",
    "invalid value",
    "no value",
    "<nil>",
    "%!",
];

/// As installed, and with as much turned on as goes together: so that every value is read.
const BASES: [&str; 2] = [
    "{}",
    "{grpc: {address: '0.0.0.0:50051'}, tls: {enabled: true, secretName: s, writers: ['cn:a']}, \
     nvml: {driverRoot: /run/nvidia/driver}, writers: {uids: [1001], gids: [1002]}, \
     policies: {source: inline, inline: {manifest: 'policies: []', components: {a.wasm: 'AGFzbQ0AAQA='}}}, \
     config: {platform: vm}, podAnnotations: {a: b}, podLabels: {c: d}, commonLabels: {e: f}, \
     extraEnv: [{name: RUST_LOG, value: info}], imagePullSecrets: [{name: pull}], \
     serviceAccount: {name: it, annotations: {g: h}}, \
     metrics: {service: {annotations: {i: j}}, serviceMonitor: {enabled: true, labels: {k: l}}, \
     prometheusRule: {enabled: true, labels: {m: o}}, dashboard: {enabled: true}}, \
     networkPolicy: {enabled: true, metricsFrom: [{podSelector: {}}]}, \
     podDisruptionBudget: {enabled: true, minAvailable: 1}}",
];

/// Values and the sections that they lie in, and the labels and quantities that are set by default.
fn paths() -> Result<Vec<Vec<String>>> {
    let mut paths = Vec::new();
    for (path, default) in readme::values()? {
        let path: Vec<_> = path.split('.').map(str::to_owned).collect();
        paths.extend((1..=path.len()).map(|end| path[..end].to_vec()));
        let keys = default.as_object().into_iter().flatten();
        paths.extend(keys.map(|(key, _)| [path.as_slice(), std::slice::from_ref(key)].concat()));
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn put(values: &mut Value, path: &[String], value: Value) -> Result<()> {
    let mut at = values;
    for part in path {
        let fields = at.as_object_mut().context("a value within a value")?;
        at = fields.entry(part).or_insert_with(|| json!({}));
    }
    *at = value;
    Ok(())
}

/// The value of a kind that says nothing; of a mapping, none of its defaults. `None`: the kind has none.
fn empty(default: &Value) -> Option<Value> {
    match default {
        Value::String(_) => Some(json!("")),
        Value::Array(_) => Some(json!([])),
        Value::Object(fields) => {
            let none = fields.keys().map(|key| (key.clone(), Value::Null));
            Some(Value::Object(none.collect::<Map<_, _>>()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn answer(chart: &Chart, base: &str, path: &[String], value: Value) -> Result<Answer> {
    let mut values: Value = serde_saphyr::from_str(base)?;
    put(&mut values, path, value)?;
    chart.template(&values.to_string(), &[])
}

/// What is rendered, without the mappings that say nothing: `limits: {}` is no limits.
fn bare(objects: &[Value]) -> Vec<Value> {
    let strip = |object: &Value| {
        let mut object = object.clone();
        let daemon = &mut object["spec"]["template"]["spec"]["containers"][0];
        if let Some(resources) = daemon["resources"].as_object_mut() {
            resources.retain(|_, quantities| *quantities != json!({}));
        }
        object
    };
    let sets = |object: &&Value| object["kind"] == "DaemonSet";
    let others = objects.iter().filter(|object| !sets(object)).cloned();
    others
        .chain(objects.iter().filter(sets).map(strip))
        .collect()
}

/// Whether what is rendered is what a cluster and the daemon take.
fn check(objects: &[Value], configuration: &str) -> Result<()> {
    let against = objection(configuration)?;
    ensure!(against.is_none(), "the daemon: {against:?}");
    for object in objects {
        let text = object.to_string();
        let left = OF_GO.iter().find(|words| text.contains(**words));
        ensure!(left.is_none(), "{left:?} in {text}");
        // Of another's kinds there is nothing to ask.
        let against = objections(object)?.unwrap_or_default();
        ensure!(against.is_empty(), "{against:?}");
    }
    Ok(())
}

#[test]
fn null_is_as_empty_or_is_refused_with_its_path() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let defaults = readme::defaults_tree()?;
    let (mut taken, mut refused) = (0, 0);
    for (number, base) in BASES.iter().enumerate() {
        for path in paths()? {
            let at = format!("{}: null over base {number}", path.join("."));
            let default = path.iter().fold(&defaults, |of, part| &of[part.as_str()]);
            match answer(&chart, base, &path, Value::Null)? {
                Ok(rendered) => {
                    check(&rendered.objects, rendered.configuration()?).context(at.clone())?;
                    let is_key = readme::values()?.contains_key(&path[..path.len() - 1].join("."));
                    if !is_key {
                        let empty = empty(default).with_context(|| format!("taken: {at}"))?;
                        let same = answer(&chart, base, &path, empty)?;
                        let same = same.map_err(|why| anyhow::anyhow!("{at}: {why}"))?;
                        ensure!(
                            bare(&rendered.objects) == bare(&same.objects),
                            "{at}: not as empty"
                        );
                    }
                    taken += 1;
                }
                Err(why) => {
                    let of_go = OF_GO.iter().find(|words| why.contains(**words));
                    ensure!(of_go.is_none(), "{at}: {why}");
                    let lost = path.iter().find(|part| !why.contains(part.as_str()));
                    ensure!(lost.is_none(), "{at}: no word of {lost:?}: {why}");
                    refused += 1;
                }
            }
        }
    }
    ensure!(
        taken > 60 && refused > 80,
        "{taken} taken, {refused} refused"
    );
    Ok(())
}
