//! A node: what of its disk pods see, and the images on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use device_api_tests::ConfigMap;
use device_api_tests::tools::{skip, works};
use serde_json::Value;
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::image::{Image, PATH};
use crate::manifest::{self, Identity, list};

/// The node's name.
pub(crate) const NODE: &str = "gpu-node-1";

pub(crate) struct Machine {
    dir: TempDir,
    image: Image,
    /// By name: as the kubelet has written them.
    config_maps: BTreeMap<String, ConfigMap>,
    containers: u32,
}

impl Machine {
    /// `None` where no container can be started, and that is said.
    pub(crate) fn find() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return skip("containers are started as root");
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork"]);
        unshare.args(["--kill-child", "ip", "link", "set", "lo", "up"]);
        if let Err(why) = works(&mut unshare) {
            return skip(&format!("no namespaces here: {why}"));
        }
        // Short: a socket's path has 107 bytes.
        let dir = tempfile::Builder::new().prefix("dapi").tempdir()?;
        // Others than root go through it, as through a node's `/`.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open)?;
        Ok(Some(Self {
            image: Image::built()?,
            dir,
            config_maps: BTreeMap::new(),
            containers: 0,
        }))
    }

    /// Where a path of the node is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("node")
            .join(path.trim_start_matches('/'))
    }

    /// A ConfigMap of the pod's namespace, written where it is mounted.
    pub(crate) fn config_map(&mut self, name: &str, files: &[(&str, &[u8])]) -> Result<()> {
        if let Some(there) = self.config_maps.get_mut(name) {
            return there.write(files);
        }
        let folder = self.dir.path().join("volumes");
        fs::create_dir_all(&folder)?;
        let map = ConfigMap::mount(folder.join(name), files)?;
        self.config_maps.insert(name.to_owned(), map);
        Ok(())
    }

    /// Where a volume's content is; the kubelet makes a host's directory for root where it may.
    fn volume(&self, pod: &Value, name: &Value) -> Result<PathBuf> {
        let mut volumes = list(pod, "volumes").iter();
        let volume = volumes.find(|volume| volume["name"] == *name);
        let volume = volume.with_context(|| format!("no volume {name}"))?;
        if let Some(host) = volume["hostPath"]["path"].as_str() {
            let path = self.path(host);
            if volume["hostPath"]["type"] == "DirectoryOrCreate" {
                fs::create_dir_all(&path)?;
            }
            return Ok(path);
        }
        if let Some(map) = volume["configMap"]["name"].as_str() {
            let map = self.config_maps.get(map);
            return Ok(map
                .with_context(|| format!("no {volume}"))?
                .root()
                .to_owned());
        }
        bail!("a volume that this node has not: {volume}");
    }

    /// Starts one container of a pod.
    pub(crate) fn start(&mut self, pod: &Value, container: &Value) -> Result<Container> {
        self.containers += 1;
        let root = self.dir.path().join(format!("root-{}", self.containers));
        fs::create_dir(&root)?;
        let identity = Identity::of(pod, container)?;
        let mut words = vec![
            format!("root={}", root.display()),
            format!("uid={}", identity.uid),
            format!("gid={}", identity.gid),
            format!("env=PATH={PATH}"),
        ];
        words.extend(identity.groups.iter().map(|gid| format!("group={gid}")));
        words.extend(identity.capabilities.iter().map(|cap| format!("cap={cap}")));
        let bind = |mode: &str, from: &Path, to: &Path| {
            format!("{mode}={}:{}", from.display(), to.display())
        };
        let files = self.image.files.iter();
        words.extend(files.map(|(from, to)| bind("ro", from, to)));
        if manifest::has_nvml(pod, container)? {
            let library = self.image.libraries.join("libnvidia-ml.so.1");
            words.push(bind("ro", &nvml_sim::find_library()?, &library));
        }
        for mount in list(container, "volumeMounts") {
            let mode = if mount["readOnly"] == true {
                "ro"
            } else {
                "rw"
            };
            let to = mount["mountPath"].as_str().context("no mountPath")?;
            let from = self.volume(pod, &mount["name"])?;
            words.push(bind(mode, &from, Path::new(to)));
        }
        // A consumer of the documents states none.
        let limit = manifest::memory_limit(container).ok();
        let group = limit.map_or(Ok(None), Cgroup::with_limit)?;
        if let Some(group) = &group {
            words.push(format!("cgroup={}", group.procs().display()));
            let (from, to) = group.mount();
            words.push(bind("ro", from, Path::new(to)));
        }
        let variables = manifest::environment(container, NODE)?;
        let variables = variables.iter();
        words.extend(variables.map(|(name, value)| format!("env={name}={value}")));
        let mut command = manifest::strings(container, "command")?;
        if command.is_empty() {
            command.clone_from(&self.image.entrypoint);
        }
        command.extend(manifest::strings(container, "args")?);
        Container::start(&words, &command, group)
    }
}
