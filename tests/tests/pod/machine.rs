//! A node: what of its disk pods see, and the images on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::ConfigMap;
use device_api_tests::tools::skip;
use serde_json::Value;
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::container::{self, Container};
use crate::image::{Image, PATH};
use crate::manifest::{self, Identity, fs_group, list};

/// The node's name.
pub(crate) const NODE: &str = "gpu-node-1";

pub(crate) struct Machine {
    dir: TempDir,
    image: Image,
    /// ConfigMaps and Secrets by name: as the kubelet has written them.
    config_maps: BTreeMap<String, ConfigMap>,
    /// By reference: what is on top of each image that is mounted.
    images: BTreeMap<String, PathBuf>,
    containers: u32,
}

impl Machine {
    /// `None` where no container can be started, and that is said.
    pub(crate) fn find() -> Result<Option<Self>> {
        // Short: a socket's path has 107 bytes.
        let dir = tempfile::Builder::new().prefix("dapi").tempdir()?;
        // Others than root go through it, as through a node's `/`.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        if let Err(why) = container::possible(dir.path()) {
            return skip(&format!("no container can be started here: {why}"));
        }
        Ok(Some(Self {
            image: Image::built()?,
            dir,
            config_maps: BTreeMap::new(),
            images: BTreeMap::new(),
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

    /// A ConfigMap or Secret of the pod's namespace, written where it is mounted.
    pub(crate) fn config_map(&mut self, name: &str, files: &[(&str, &[u8])]) -> Result<()> {
        if let Some(there) = self.config_maps.get_mut(name) {
            return there.write(files);
        }
        let map = ConfigMap::mount(self.volumes()?.join(name), files)?;
        self.config_maps.insert(name.to_owned(), map);
        Ok(())
    }

    /// An image that the node has pulled.
    pub(crate) fn image(&mut self, reference: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let folder = self.volumes()?.join(format!("image-{}", self.images.len()));
        fs::create_dir(&folder)?;
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes)?;
        }
        self.images.insert(reference.to_owned(), folder);
        Ok(())
    }

    /// The pod is gone, and what it had of its own with it.
    pub(crate) fn forget_the_pod(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.of_the_pod())?)
    }

    fn of_the_pod(&self) -> PathBuf {
        self.dir.path().join("pod")
    }

    fn volumes(&self) -> Result<PathBuf> {
        let folder = self.dir.path().join("volumes");
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Where a volume's content is; the kubelet makes a host's directory for root where it may.
    pub(crate) fn volume(&self, pod: &Value, name: &Value) -> Result<PathBuf> {
        let mut volumes = list(pod, "volumes").iter();
        let volume = volumes.find(|volume| volume["name"] == *name);
        let volume = volume.with_context(|| format!("no volume {name}"))?;
        let missing = || format!("not on this node: {volume}");
        if let Some(host) = volume["hostPath"]["path"].as_str() {
            let path = self.path(host);
            if volume["hostPath"]["type"] == "DirectoryOrCreate" {
                fs::create_dir_all(&path)?;
            }
            ensure!(path.exists(), missing());
            return Ok(path);
        }
        if let Some(map) = volume["configMap"]["name"].as_str() {
            let map = self.config_maps.get(map).with_context(missing)?;
            return Ok(map.root().to_owned());
        }
        if let Some(secret) = volume["secret"]["secretName"].as_str() {
            let secret = self.config_maps.get(secret).with_context(missing)?;
            let mode = volume["secret"]["defaultMode"]
                .as_u64()
                .context("no mode")?;
            own(secret.root(), u32::try_from(mode)?, fs_group(pod))?;
            return Ok(secret.root().to_owned());
        }
        if let Some(image) = volume["image"]["reference"].as_str() {
            return Ok(self.images.get(image).with_context(missing)?.clone());
        }
        if volume["emptyDir"].is_object() {
            let name = name.as_str().context("no name")?;
            let path = self.of_the_pod().join(name);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, PermissionsExt::from_mode(0o777))?;
            return Ok(path);
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

/// A Secret's files, as the kubelet has them (pkg/volume/volume_linux.go): root's, of that mode, and where the pod has a group
/// for its volumes, for that to read.
fn own(path: &Path, mode: u32, group: Option<u64>) -> Result<()> {
    let group = group.map(u32::try_from).transpose()?;
    let kind = fs::symlink_metadata(path)?;
    lchown(path, Some(0), group.or(Some(0)))?;
    if kind.is_dir() {
        let mode_of_folder = if group.is_some() { 0o2775 } else { 0o755 };
        fs::set_permissions(path, PermissionsExt::from_mode(mode_of_folder))?;
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), mode, group.map(u64::from))?;
        }
    } else if kind.is_file() {
        let read = if group.is_some() { 0o440 } else { 0 };
        fs::set_permissions(path, PermissionsExt::from_mode(mode | read))?;
    }
    Ok(())
}
