//! A simulated node: the daemon, the simulated NVML in it, a kernel log, and where they all are.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nvml_sim::control::{Client, MigStatus, Request};
use nvml_sim::profile::{GPUS_DEFAULT, Identity, Profile};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tempfile::TempDir;

use device_api_proto::native;

use crate::client::{Native, Upstream, health_of};
use crate::http::http;
use crate::{Daemon, binary};

/// Which NVML it has.
#[derive(Clone, Copy, Debug)]
enum Library {
    Simulated,
    None,
    /// What the daemon finds by itself.
    OfTheMachine,
}

/// What a node is started with.
#[derive(Debug)]
pub struct Builder {
    dir: TempDir,
    profile: &'static Profile,
    gpus: u32,
    nvml: Library,
    flags: BTreeMap<String, String>,
    env: Vec<(String, String)>,
}

impl Builder {
    /// How many GPUs are simulated; 8 by default.
    #[must_use]
    pub fn gpus(mut self, gpus: u32) -> Self {
        self.gpus = gpus;
        self
    }

    /// Which GPUs are simulated; H100 by default.
    #[must_use]
    pub fn profile(mut self, profile: &'static Profile) -> Self {
        self.profile = profile;
        self.env("NVML_SIM_PROFILE", &profile.key)
    }

    /// What the simulated driver would log goes to the kernel log.
    #[must_use]
    pub fn with_the_drivers_lines(self) -> Self {
        let kmsg = self.dir().join("kmsg").display().to_string();
        self.env("NVML_SIM_KMSG", &kmsg)
    }

    /// No NVML library at all.
    #[must_use]
    pub fn without_nvml(mut self) -> Self {
        self.nvml = Library::None;
        self
    }

    /// The NVML that the daemon finds on this machine.
    #[must_use]
    pub fn with_nvml_of_the_machine(mut self) -> Self {
        self.nvml = Library::OfTheMachine;
        self
    }

    /// In a boot of its own, which [`Node::next_boot`] ends.
    ///
    /// # Errors
    /// The file that names the boot can't be written.
    pub fn in_its_own_boot(self) -> Result<Self> {
        let file = boot_id_file(self.dir());
        std::fs::write(&file, "first\n")?;
        Ok(self.flag("boot-id-file", file.to_string_lossy()))
    }

    /// A flag of the daemon, and its value; in place of the node's own, where it sets that flag.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl AsRef<str>) -> Self {
        self.flags
            .insert(flag.to_owned(), value.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where the node keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; shows its log.
    pub fn start(self) -> Result<Node> {
        let node = self.spawn()?;
        node.daemon.wait_for(&["started"])?;
        Ok(node)
    }

    /// Starts the daemon and does not wait.
    ///
    /// # Errors
    /// It, or the simulated library, was not built.
    pub fn spawn(self) -> Result<Node> {
        let kmsg = self.dir.path().join("kmsg");
        mknodat(CWD, &kmsg, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .context("making the kernel log")?;
        let mut command = Command::new(binary("device-api-server")?);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DEVICE_API_")) {
            command.env_remove(name);
        }
        let socket = self.dir.path().join("device.sock");
        let state = self.dir.path().join("state");
        let library = match self.nvml {
            Library::Simulated => {
                command
                    .env("NVML_SIM_SOCKET", self.dir.path().join("sim.sock"))
                    .env("NVML_SIM_GPUS", self.gpus.to_string());
                Some(nvml_sim::find_library()?)
            }
            Library::None => Some(self.dir.path().join("no-such-library.so")),
            Library::OfTheMachine => None,
        };
        let mut flags = BTreeMap::from(
            [
                ("unix-socket", &*socket.to_string_lossy()),
                ("grpc-address", "127.0.0.1:0"),
                ("admin-address", "127.0.0.1"),
                ("health-port", "0"),
                ("metrics-port", "0"),
                ("kmsg-path", &*kmsg.to_string_lossy()),
                ("drills", "enforce"),
                ("nvml-poll-interval", "200ms"),
                ("nvml-fault-interval", "200ms"),
                ("nvml-counter-interval", "200ms"),
                ("nvml-inventory-interval", "1s"),
                // The most there may be: a policy that misses 5 ms on a busy machine is not what a test is about.
                ("policy-deadline", "25ms"),
                ("state-dir", &*state.to_string_lossy()),
            ]
            .map(|(flag, value)| (flag.to_owned(), value.to_owned())),
        );
        flags.extend(library.map(|library| {
            let library = library.to_string_lossy().into_owned();
            ("nvml-library".to_owned(), library)
        }));
        flags.extend(self.flags);
        command
            .args(
                flags
                    .iter()
                    .map(|(flag, value)| format!("--{flag}={value}")),
            )
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        let daemon = Daemon::spawn(repeat(&command))?;
        Ok(Node {
            dir: self.dir,
            profile: self.profile,
            gpus: self.gpus,
            socket,
            kmsg,
            state,
            command,
            daemon,
        })
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    dir: TempDir,
    profile: &'static Profile,
    gpus: u32,
    socket: PathBuf,
    kmsg: PathBuf,
    state: PathBuf,
    command: Command,
    pub daemon: Daemon,
}

/// The same command once more.
fn repeat(command: &Command) -> Command {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => again.env(name, value),
            None => again.env_remove(name),
        };
    }
    again
}

fn boot_id_file(dir: &Path) -> PathBuf {
    dir.join("boot_id")
}

impl Node {
    /// # Errors
    /// No temporary directory.
    pub fn builder() -> Result<Builder> {
        // Short: a socket's path has 107 bytes.
        let dir = tempfile::Builder::new().prefix("dapi").tempdir()?;
        Ok(Builder {
            dir,
            profile: Profile::standard(),
            gpus: GPUS_DEFAULT,
            nvml: Library::Simulated,
            flags: BTreeMap::new(),
            env: Vec::new(),
        })
    }

    /// 8 × H100, ready.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start() -> Result<Self> {
        Self::builder()?.start()
    }

    /// Ends the daemon, and waits until it has ended.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)?;
        self.daemon.wait()?;
        Ok(())
    }

    /// The machine was rebooted, where it is [in its own boot](Builder::in_its_own_boot): to a daemon that is started again.
    ///
    /// # Errors
    /// The file that names the boot can't be written.
    pub fn next_boot(&self) -> Result<()> {
        Ok(std::fs::write(boot_id_file(self.dir()), "second\n")?)
    }

    /// Starts a daemon that was stopped, as it was started first, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.spawn_again()?;
        self.daemon.wait_for(&["started"])?;
        Ok(())
    }

    /// As [`Self::start_again`], without waiting.
    ///
    /// # Errors
    /// It can't be run.
    pub fn spawn_again(&mut self) -> Result<()> {
        self.daemon = Daemon::spawn(repeat(&self.command))?;
        Ok(())
    }

    /// What the next daemon has in its environment: of the simulated NVML, another machine.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.command.env(name, value);
    }

    /// Removes what a stopped daemon would go on from.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn forget_state(&self) -> Result<()> {
        if self.state.exists() {
            std::fs::remove_dir_all(&self.state).context("removing the state")?;
        }
        Ok(())
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The control socket of the simulated NVML.
    pub fn sim_socket(&self) -> PathBuf {
        self.dir.path().join("sim.sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The simulated GPUs, as the profile names them.
    pub fn gpus(&self) -> Vec<Identity> {
        self.profile.gpus(self.gpus)
    }

    /// The UUID of a simulated GPU, which is its name in the API.
    ///
    /// # Errors
    /// The node has fewer.
    pub fn uuid(&self, gpu: u32) -> Result<String> {
        Ok(self
            .profile
            .gpu(gpu)
            .with_context(|| format!("no GPU {gpu}"))?
            .uuid)
    }

    /// Breaks GPUs.
    ///
    /// # Errors
    /// The simulated library does not run.
    pub fn sim(&self) -> Result<Client> {
        Ok(Client::connect(self.sim_socket())?)
    }

    /// Cuts a GPU up into MIG instances of these profiles, in place of those that it has: what it has then.
    ///
    /// # Errors
    /// There is no room for them, or no simulated library.
    pub fn cut_up(&self, gpu: u32, profiles: &[&str]) -> Result<Vec<MigStatus>> {
        let mut sim = self.sim()?;
        sim.request(&Request::MigMode { gpu, on: true })?;
        sim.request(&Request::MigDestroy {
            gpu,
            gpu_instance: None,
        })?;
        let profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
        sim.request(&Request::MigCreate { gpu, profiles })?;
        let gpus = sim.status()?.gpus.into_iter();
        let mut with = gpus.filter(|status| status.index == gpu);
        Ok(with.next().context("no such GPU")?.mig)
    }

    /// Appends lines to the kernel log.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn kernel_log<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut kmsg: File = OpenOptions::new().write(true).open(&self.kmsg)?;
        for line in lines {
            writeln!(kmsg, "{line}")?;
        }
        Ok(())
    }

    /// A client of the native dialect over the Unix socket.
    ///
    /// # Errors
    /// The socket can't be connected to.
    pub async fn native(&self) -> Result<Native> {
        Native::connect(&self.socket).await
    }

    /// A client of the native dialect, once every simulated GPU is Healthy.
    ///
    /// # Errors
    /// One does not become so.
    pub async fn healthy(&self) -> Result<Native> {
        let mut client = self.native().await?;
        for gpu in self.gpus() {
            let healthy = |gpu: &native::Gpu| health_of(gpu) == native::Health::Healthy;
            client
                .watch(0)
                .await?
                .until(&gpu.uuid, "Healthy", healthy)
                .await?;
        }
        Ok(client)
    }

    /// A client of the upstream dialect over the Unix socket.
    ///
    /// # Errors
    /// The socket can't be connected to.
    pub async fn upstream(&self) -> Result<Upstream> {
        Upstream::connect(&self.socket).await
    }

    /// All metrics, as Prometheus scrapes them.
    ///
    /// # Errors
    /// The metrics port does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(http(&self.address("/metrics")?, "/metrics")?.1)
    }

    /// The address that the daemon's log gives for a listener that was started with port 0:
    /// `/healthz`, `/metrics` or `API: TCP`.
    ///
    /// # Errors
    /// The log names none.
    pub fn address(&self, listener: &str) -> Result<String> {
        let line = self.daemon.wait_for(&[listener, "address="])?;
        let at = line
            .find("127.0.0.1:")
            .with_context(|| format!("no address in {line:?}"))?;
        let address: String = line.chars().skip(line[..at].chars().count()).collect();
        Ok(address
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.' || *c == ':')
            .collect())
    }
}
