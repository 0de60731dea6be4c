//! What the values come to: the defaults to the letter, the other objects, and a configuration that the daemon takes.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::helm::{Chart, NAMESPACE, RELEASE, Rendered};
use crate::matrix::MATRIX;
use crate::pod::list;
use crate::settings::objection;

#[track_caller]
fn same(what: &str, found: &Value, expected: Value) -> Result<()> {
    ensure!(*found == expected, "{what}: {found} is not {expected}");
    Ok(())
}

/// As the issue of the chart has them.
#[test]
fn the_defaults_are_those_that_were_agreed() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let rendered = chart.rendered("{}")?;
    let pod = rendered.pod()?;
    let daemon = &pod["containers"][0];
    same(
        "nodes",
        &pod["nodeSelector"],
        json!({"nvidia.com/gpu.present": "true"}),
    )?;
    let taint = json!([{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]);
    same("tolerations", &pod["tolerations"], taint)?;
    same("runtime class", &pod["runtimeClassName"], json!("nvidia"))?;
    let resources =
        json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}});
    same("resources", &daemon["resources"], resources)?;
    for (name, value) in [
        ("NVIDIA_VISIBLE_DEVICES", "all"),
        ("NVIDIA_DRIVER_CAPABILITIES", "utility"),
    ] {
        let variable = json!({"name": name, "value": value});
        ensure!(list(daemon, "env").contains(&variable), "no {variable}");
    }
    let configuration: Value = serde_saphyr::from_str(rendered.configuration()?)?;
    same(
        "TCP",
        &configuration["grpc-address"],
        json!("127.0.0.1:50051"),
    )?;
    same(
        "socket",
        &configuration["unix-socket"],
        json!(["/var/run/device-api/device.sock"]),
    )?;
    same("health", &configuration["health-port"], json!(8081))?;
    same("metrics", &configuration["metrics-port"], json!(9090))?;
    let update = &rendered.the("DaemonSet")?["spec"]["updateStrategy"];
    let expected =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    same("update", update, expected)?;
    let user = &daemon["securityContext"];
    same(
        "user",
        &json!([user["runAsUser"], user["runAsGroup"]]),
        json!([65534, 65534]),
    )?;
    let expected = ["ConfigMap", "DaemonSet", "Pod", "Service", "ServiceAccount"];
    ensure!(rendered.kinds() == expected, "{:?}", rendered.kinds());
    Ok(())
}

#[test]
fn nvidias_runtime_is_asked_for_only_with_nvml() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let rendered = chart.rendered("nvml: {enabled: false}")?;
    ensure!(
        !rendered.the("DaemonSet")?.to_string().contains("NVIDIA_"),
        "no variable of its runtime"
    );
    same(
        "runtime class",
        &rendered.pod()?["runtimeClassName"],
        Value::Null,
    )?;
    let rendered =
        chart.rendered("nvml: {runtimeClassName: '', driverRoot: /run/nvidia/driver}")?;
    same(
        "runtime class",
        &rendered.pod()?["runtimeClassName"],
        Value::Null,
    )?;
    ensure!(
        rendered
            .configuration()?
            .contains("nvml-driver-root: \"/run/nvidia/driver\""),
        "where to look"
    );
    Ok(())
}

#[test]
fn policies_come_from_where_the_values_say() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let named = format!("{RELEASE}-device-api-server-policies");
    for (case, expected) in [
        ("policies inline", json!({"configMap": {"name": named}})),
        (
            "policies of a ConfigMap",
            json!({"configMap": {"name": "site-policies"}}),
        ),
        (
            "policies of an image",
            json!({"image": {"reference": "example.org/policies:1@sha256:00", "pullPolicy": "Always"}}),
        ),
        (
            "policies of the node",
            json!({"hostPath": {"path": "/opt/policies", "type": "Directory"}}),
        ),
    ] {
        let rendered = of(&chart, case)?;
        let volumes = list(rendered.pod()?, "volumes");
        let volume = volumes.iter().find(|volume| volume["name"] == "policies");
        let mut volume = volume
            .with_context(|| format!("{case}: no volume"))?
            .clone();
        volume.as_object_mut().context("an object")?.remove("name");
        same(case, &volume, expected)?;
    }
    let map = of(&chart, "policies inline")?;
    let map = map.named("ConfigMap", &named)?;
    same(
        "manifest",
        &map["data"],
        json!({"policies.yaml": "policies:\n  - name: xid-policy\n"}),
    )?;
    same(
        "components",
        &map["binaryData"],
        json!({"thermal.wasm": "AGFzbQ0AAQA="}),
    )
}

/// What `--set-file` reads is a file of base64, with its lines.
#[test]
fn a_component_may_be_set_from_a_file() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let (component, manifest) = (
        dir.path().join("thermal.b64"),
        dir.path().join("policies.yaml"),
    );
    std::fs::write(&component, "AGFzbQ0AAQAB\nAgME\n")?;
    std::fs::write(&manifest, "# of the site\npolicies: []\n")?;
    let component = format!(
        "policies.inline.components.thermal\\.wasm={}",
        component.display()
    );
    let manifest = format!("policies.inline.manifest={}", manifest.display());
    let flags = [
        "--set",
        "policies.source=inline",
        "--set-file",
        &component,
        "--set-file",
        &manifest,
    ];
    let rendered = chart.template("{}", &flags)?.map_err(anyhow::Error::msg)?;
    let map = rendered.named(
        "ConfigMap",
        &format!("{RELEASE}-device-api-server-policies"),
    )?;
    same(
        "components",
        &map["binaryData"],
        json!({"thermal.wasm": "AGFzbQ0AAQABAgME"}),
    )?;
    same(
        "manifest",
        &map["data"],
        json!({"policies.yaml": "# of the site\npolicies: []\n"}),
    )
}

fn of(chart: &Chart, case: &str) -> Result<Rendered> {
    let (_, values) = MATRIX
        .iter()
        .find(|(name, _)| *name == case)
        .context("no such case")?;
    chart.rendered(values)
}

#[test]
fn the_daemon_takes_the_configuration_of_every_case() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    for (case, values) in MATRIX {
        let rendered = chart.rendered(values)?;
        let configuration = rendered.configuration()?;
        let against = objection(configuration)?;
        ensure!(against.is_none(), "{case}: {against:?}\n{configuration}");
    }
    let errors = objection("helth-port: 1\n")?.unwrap_or_default();
    ensure!(
        errors.contains("helth-port"),
        "what is wrong is refused: {errors}"
    );
    Ok(())
}

#[test]
fn a_changed_configuration_is_a_new_pod_and_changed_policies_are_not() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let template = |values: &str| -> Result<Value> {
        Ok(chart.rendered(values)?.the("DaemonSet")?["spec"]["template"].clone())
    };
    let policies = |bytes: &str| {
        format!("policies: {{source: inline, inline: {{components: {{a.wasm: '{bytes}'}}}}}}")
    };
    ensure!(
        template("{}")? != template("log: {verbosity: 1}")?,
        "the daemon reads its file once"
    );
    ensure!(
        template(&policies("AGFzbQ0AAQA="))? == template(&policies("AGFzbQ0AAQAB"))?,
        "swapped while it runs"
    );
    Ok(())
}

#[test]
fn prometheus_and_grafana_get_what_the_files_hold() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let on = "{metrics: {serviceMonitor: {enabled: true}, dashboard: {enabled: true}}}";
    let rendered = chart.rendered(on)?;
    let map = rendered.named(
        "ConfigMap",
        &format!("{RELEASE}-device-api-server-dashboard"),
    )?;
    let text = map["data"]["device-api-server.json"].as_str();
    let shown: Value = serde_json::from_str(text.context("no dashboard")?)?;
    let file = std::fs::read_to_string(chart.folder.join("files/dashboard.json"))?;
    same("dashboard", &shown, serde_json::from_str(&file)?)?;
    let endpoint = &rendered.the("ServiceMonitor")?["spec"]["endpoints"][0];
    same("interval", &endpoint["interval"], json!("30s"))
}

#[test]
fn a_budget_is_a_count_as_any_other_field_takes_a_scale_subresource_that_a_daemon_set_lacks()
-> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let rendered = of(&chart, "everything besides")?;
    let budget = &rendered.the("PodDisruptionBudget")?["spec"];
    let said = json!([budget["minAvailable"], budget["maxUnavailable"]]);
    same("budget", &said, json!([3, null]))
}

#[test]
fn selectors_meet_the_pods_they_are_for_and_no_others() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let rendered = of(&chart, "everything besides")?;
    let set = rendered.the("DaemonSet")?;
    let pods = &set["spec"]["template"]["metadata"]["labels"];
    let selects = |selector: &Value, labels: &Value| {
        let mut wanted = selector.as_object().into_iter().flatten();
        wanted.all(|(label, value)| labels[label] == *value)
    };
    let service = rendered.the("Service")?;
    for (what, selector) in [
        ("DaemonSet", &set["spec"]["selector"]["matchLabels"]),
        ("Service", &service["spec"]["selector"]),
        (
            "NetworkPolicy",
            &rendered.the("NetworkPolicy")?["spec"]["podSelector"]["matchLabels"],
        ),
        (
            "PodDisruptionBudget",
            &rendered.the("PodDisruptionBudget")?["spec"]["selector"]["matchLabels"],
        ),
    ] {
        ensure!(
            selector
                .as_object()
                .is_some_and(|labels| !labels.is_empty()),
            "{what} selects all"
        );
        ensure!(
            selects(selector, pods),
            "{what}: {selector} is not in {pods}"
        );
        let test = &rendered.the("Pod")?["metadata"]["labels"];
        ensure!(
            !selects(selector, test),
            "{what} selects the test's pod as well"
        );
    }
    let monitor = &rendered.the("ServiceMonitor")?["spec"];
    ensure!(
        selects(
            &monitor["selector"]["matchLabels"],
            &service["metadata"]["labels"]
        ),
        "the Service"
    );
    same(
        "port",
        &monitor["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"].clone(),
    )?;
    for object in &rendered.objects {
        same(
            "namespace",
            &object["metadata"]["namespace"],
            json!(NAMESPACE),
        )?;
        same(
            "commonLabels",
            &object["metadata"]["labels"]["team"],
            json!("gpu"),
        )?;
    }
    Ok(())
}

#[test]
fn the_notes_tell_what_to_type() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let said = crate::cluster::notes(&chart, "")?;
    for wanted in [
        "kubectl -n monitoring exec daemonset/gpus-device-api-server -- devicectl get gpus",
        "helm test -n monitoring gpus",
        "/var/run/device-api/device.sock",
        "kernelLog.enabled",
    ] {
        ensure!(said.contains(wanted), "no {wanted} in\n{said}");
    }
    let affinity = "{nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
        [{matchExpressions: [{key: a, operator: Exists}]}]}}}";
    let values = format!(
        "podSecurity: {{runAsGroup: 1000660000}}\nnodeSelector: {{nvidia.com/gpu.present: null}}\naffinity: {affinity}"
    );
    let said = crate::cluster::notes(&chart, &values)?;
    for wanted in [
        "have 1000660000 among",
        "each node that its affinity names\n",
    ] {
        ensure!(said.contains(wanted), "no {wanted} in\n{said}");
    }
    Ok(())
}

/// Its first line says nothing of how far the others are in.
#[test]
fn a_manifest_is_brought_to_the_letter() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let manifest = "   # mine\npolicies: []\n\t# \"<&>\" µ\n\n";
    let values = json!({"policies": {"source": "inline", "inline": {"manifest": manifest}}});
    let rendered = chart.rendered(&values.to_string())?;
    let map = format!("{RELEASE}-device-api-server-policies");
    same(
        "manifest",
        &rendered.named("ConfigMap", &map)?["data"]["policies.yaml"],
        json!(manifest),
    )
}

#[test]
fn helm_has_nothing_against_the_chart() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let output = chart
        .helm()
        .args(["lint", "--strict"])
        .arg(&chart.folder)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}
