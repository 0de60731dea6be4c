//! What of a container's manifest a runtime and a kubelet act on.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

pub(crate) fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

/// The strings of a list.
pub(crate) fn strings(of: &Value, key: &str) -> Result<Vec<String>> {
    let words = list(of, key).iter().map(|word| {
        let word = word.as_str().with_context(|| format!("{key}: {word}"))?;
        Ok(word.to_owned())
    });
    words.collect()
}

/// The group that volumes of the pod's own are made for.
pub(crate) fn fs_group(pod: &Value) -> Option<u64> {
    pod["securityContext"]["fsGroup"].as_u64()
}

/// Numbers of capabilities: the kernel's sets have 64 bits.
const CAPABILITIES: u64 = 64;

/// As whom it runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) groups: Vec<u64>,
    /// Numbers of capabilities.
    pub(crate) capabilities: Vec<u64>,
}

impl Identity {
    /// # Errors
    /// The manifest asks for something that the test's runtime has not, or leaves it to the runtime.
    pub(crate) fn of(pod: &Value, container: &Value) -> Result<Self> {
        let (outer, own) = (&pod["securityContext"], &container["securityContext"]);
        let either = |key: &str| {
            let value = own[key].as_u64().or_else(|| outer[key].as_u64());
            value.with_context(|| format!("no {key}"))
        };
        let is_privileged = own["privileged"] == true;
        let is_bound = own["allowPrivilegeEscalation"] == false
            && own["privileged"].is_null()
            && own["capabilities"]["drop"] == serde_json::json!(["ALL"]);
        ensure!(
            own["readOnlyRootFilesystem"] == true && (is_privileged || is_bound),
            "not what this runtime starts: {own}"
        );
        let (uid, gid) = (either("runAsUser")?, either("runAsGroup")?);
        let is_root_refused = [own, outer].map(|of| of["runAsNonRoot"].as_bool());
        let is_root_refused = is_root_refused.into_iter().flatten().next();
        ensure!(
            uid != 0 || is_root_refused != Some(true),
            "the kubelet would not start it"
        );
        let mut groups = vec![gid];
        groups.extend(fs_group(pod));
        for group in list(outer, "supplementalGroups") {
            groups.push(group.as_u64().context("no number")?);
        }
        if is_privileged {
            return Ok(Self {
                uid,
                gid,
                groups,
                capabilities: (0..CAPABILITIES).collect(),
            });
        }
        let capabilities = list(&own["capabilities"], "add").iter().map(|name| {
            // linux/capability.h
            match name.as_str() {
                Some("CHOWN") => Ok(0),
                _ => bail!("what is {name}?"),
            }
        });
        Ok(Self {
            uid,
            gid,
            groups,
            capabilities: capabilities.collect::<Result<_>>()?,
        })
    }
}

/// The container's variables.
pub(crate) fn environment(container: &Value, node: &str) -> Result<Vec<(String, String)>> {
    let variables = list(container, "env").iter().map(|variable| {
        let name = variable["name"].as_str().context("no name")?;
        let is_node = variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName";
        let of_node = is_node.then_some(node);
        let value = variable["value"].as_str().or(of_node);
        let value = value.with_context(|| format!("no value: {variable}"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    variables.collect()
}

/// Whether NVIDIA's runtime brings the driver's library in.
pub(crate) fn has_nvml(pod: &Value, container: &Value) -> Result<bool> {
    let variables = environment(container, "")?;
    let is = |name: &str, value: &str| {
        let mut found = variables.iter().filter(|(found, _)| found == name);
        found.any(|(_, found)| found.split(',').any(|word| word == value))
    };
    Ok(pod["runtimeClassName"] == "nvidia"
        && is("NVIDIA_VISIBLE_DEVICES", "all")
        && is("NVIDIA_DRIVER_CAPABILITIES", "utility"))
}

/// The limit of a container's memory, in bytes.
pub(crate) fn memory_limit(container: &Value) -> Result<u64> {
    let limit = container["resources"]["limits"]["memory"].as_str();
    let mebibytes = limit.and_then(|limit| limit.strip_suffix("Mi"));
    let mebibytes = mebibytes.with_context(|| format!("no limit in Mi: {limit:?}"))?;
    Ok(mebibytes.parse::<u64>()? << 20)
}

/// The number of a port that the container names.
pub(crate) fn port(container: &Value, name: &str) -> Result<u16> {
    let mut ports = list(container, "ports").iter();
    let port = ports.find(|port| port["name"] == name);
    let number = port.and_then(|port| port["containerPort"].as_u64());
    Ok(u16::try_from(
        number.with_context(|| format!("no port {name}"))?,
    )?)
}
