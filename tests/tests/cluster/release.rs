//! One release of the chart in a namespace of its own.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::helm::RELEASE;
use crate::shared::{Answer, Cluster};

/// As the chart names it for this release.
pub(crate) const FULL_NAME: &str = "gpus-device-api-server";

pub(crate) struct Release {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) namespace: String,
}

impl Release {
    /// A namespace of a level of Pod Security, and nothing in it yet.
    pub(crate) fn new(cluster: Arc<Cluster>, namespace: &str, level: &str) -> Result<Self> {
        cluster.namespace(namespace, level)?;
        let namespace = namespace.to_owned();
        Ok(Self { cluster, namespace })
    }

    /// Helm, of this namespace.
    pub(crate) fn helm(&self, arguments: &[&str], values: &str) -> Result<Answer> {
        let namespace = ["--namespace", &*self.namespace];
        self.cluster.helm(&[arguments, &namespace].concat(), values)
    }

    /// The same where it has to succeed.
    pub(crate) fn done(&self, arguments: &[&str], values: &str) -> Result<String> {
        let answer = self.helm(arguments, values)?;
        answer.map_err(|why| anyhow::anyhow!("helm {}, {values}: {why}", arguments.join(" ")))
    }

    pub(crate) fn install(&self, values: &str) -> Result<String> {
        self.done(&["install", RELEASE, "CHART"], values)
    }

    /// An upgrade to these values and no others: told none, Helm would take those of before. It forgets
    /// no revision.
    pub(crate) fn upgrade(&self, values: &str) -> Result<String> {
        self.done(
            &[
                "upgrade",
                RELEASE,
                "CHART",
                "--reset-values",
                "--history-max=0",
            ],
            values,
        )
    }

    pub(crate) fn get(&self, what: &[&str]) -> Result<Value> {
        self.cluster.get(&self.namespace, what)
    }

    pub(crate) fn inventory(&self) -> Result<Vec<String>> {
        self.cluster.inventory(&self.namespace)
    }

    /// The number and state of the newest revision.
    pub(crate) fn status(&self) -> Result<(u64, String)> {
        let status = self.done(&["status", RELEASE, "--output=json"], "")?;
        let status: Value = serde_json::from_str(&status)?;
        let revision = status["version"].as_u64().context("no revision")?;
        let state = status["info"]["status"].as_str().context("no status")?;
        Ok((revision, state.to_owned()))
    }

    /// A pod as the server's own DaemonSet has it.
    pub(crate) fn pod(&self) -> Result<Value> {
        let mut pod = self.get(&["daemonset", FULL_NAME])?["spec"]["template"].take();
        ensure!(pod["spec"].is_object(), "no template");
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "daemon".into();
        pod["metadata"]["namespace"] = self.namespace.clone().into();
        Ok(pod)
    }

    /// What the server says to objects, which it does not keep: those it would keep, or why it refuses.
    pub(crate) fn asked(&self, objects: &[Value]) -> Result<std::result::Result<Value, String>> {
        let dry = ["create", "--dry-run=server", "--output=json"];
        Ok(match self.cluster.send(&dry, objects)? {
            Ok(kept) => Ok(serde_json::from_str(&kept)?),
            Err(why) => Err(why),
        })
    }
}
