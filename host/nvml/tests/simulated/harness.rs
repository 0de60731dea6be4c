//! A process per test, a line to the simulation, and a sink that remembers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{NvmlObserver, NvmlStatus, SignalSink};
use device_api_core::signal::{Observation, Samples, SignalKind};
use device_api_nvml::{Config, Handle, Nvml};

const LIBRARY: &str = "NVML_TEST_LIBRARY";
const SOCKET: &str = "NVML_SIM_SOCKET";

/// Nothing that is waited for takes more than about a second; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` in a process of its own, whose simulated NVML listens to [`Sim::ask`]. `name` is the
/// test's, with its module.
#[track_caller]
pub(crate) fn isolated(name: &str, body: impl FnOnce(&Sim)) {
    if let Some(library) = std::env::var_os(LIBRARY) {
        return body(&Sim {
            library: library.into(),
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(LIBRARY, built_library())
        .env(SOCKET, folder.path().join("sim.sock"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("1 passed"),
        "no test is called {name}: {text}"
    );
}

/// The library that belongs to this test executable, built where nobody did that yet.
fn built_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let executable = std::env::current_exe().unwrap();
        // target/<profile>/deps/<test>
        let folder = executable.ancestors().nth(2).unwrap();
        let library = folder.join("libnvml_sim.so");
        if !library.is_file() {
            let profile = match folder.file_name().unwrap().to_str().unwrap() {
                "debug" => "dev",
                profile => profile,
            };
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "-p", "nvml-sim", "--profile", profile])
                .status()
                .unwrap();
            assert!(built.success());
        }
        assert!(library.is_file(), "no {}", library.display());
        library
    })
}

/// The simulated NVML of this process.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) library: PathBuf,
}

impl Sim {
    pub(crate) fn config(&self) -> Config {
        Config {
            library: Some(self.library.clone()),
            poll_interval: Duration::from_millis(50),
            ..Config::default()
        }
    }

    /// Starts the source and waits until it is ready.
    pub(crate) fn start(&self, config: Config) -> (Arc<Recorder>, Handle) {
        let (recorder, handle) = start(config);
        recorder.ready(1);
        (recorder, handle)
    }

    /// One command; the answer's JSON. Fails where it was not carried out.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(std::env::var_os(SOCKET).unwrap()).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.contains(r#""ok":true"#), "{command}: {answer}");
        answer
    }

    /// One command whose events have to be taken.
    #[track_caller]
    pub(crate) fn raise(&self, command: &str) {
        let answer = self.ask(command);
        assert!(
            answer.contains(r#""delivered":true"#),
            "{command}: {answer}"
        );
    }
}

pub(crate) fn start(config: Config) -> (Arc<Recorder>, Handle) {
    let recorder = Arc::new(Recorder::default());
    let sink: Arc<dyn SignalSink> = Arc::<Recorder>::clone(&recorder);
    let observer: Arc<dyn NvmlObserver> = Arc::<Recorder>::clone(&recorder);
    let handle = Nvml::start(config, sink, observer).unwrap();
    (recorder, handle)
}

/// What the source said, in that order.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Observed(Observation),
    Found(DeviceInfo, Arc<Samples>),
    Sampled(DeviceUuid, Arc<Samples>),
    Probing(Vec<DeviceUuid>),
    Probed(DeviceUuid),
    Status(NvmlStatus),
}

impl Said {
    pub(crate) fn observed(&self) -> Option<&Observation> {
        if let Self::Observed(observation) = self {
            Some(observation)
        } else {
            None
        }
    }

    pub(crate) fn found(&self) -> Option<(&DeviceInfo, &Arc<Samples>)> {
        if let Self::Found(info, samples) = self {
            Some((info, samples))
        } else {
            None
        }
    }

    pub(crate) fn status(&self) -> Option<&NvmlStatus> {
        if let Self::Status(status) = self {
            Some(status)
        } else {
            None
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    said: Mutex<Vec<Said>>,
    changed: Condvar,
}

impl Recorder {
    fn record(&self, said: Said) {
        self.said.lock().unwrap().push(said);
        self.changed.notify_all();
    }

    pub(crate) fn said(&self) -> Vec<Said> {
        self.said.lock().unwrap().clone()
    }

    /// How much was said until now: what comes later is [`Self::wait_after`] it.
    pub(crate) fn now(&self) -> usize {
        self.said.lock().unwrap().len()
    }

    /// The first answer of `find` to what was said after `start`.
    #[track_caller]
    pub(crate) fn wait_after<T>(&self, start: usize, find: impl Fn(&Said) -> Option<T>) -> T {
        let search = |said: &[Said]| said[start..].iter().find_map(&find);
        let said = self.said.lock().unwrap();
        let nothing = |said: &mut Vec<Said>| search(said).is_none();
        let (said, _) = self
            .changed
            .wait_timeout_while(said, PATIENCE, nothing)
            .unwrap();
        let found = search(&said);
        found.unwrap_or_else(|| panic!("not said in time; the last was {:?}", said.last()))
    }

    #[track_caller]
    pub(crate) fn wait_for<T>(&self, find: impl Fn(&Said) -> Option<T>) -> T {
        self.wait_after(0, find)
    }

    /// Waits for the `n`-th status that says ready.
    #[track_caller]
    pub(crate) fn ready(&self, n: usize) {
        let said = self.said.lock().unwrap();
        let ready = |said: &[Said]| {
            said.iter()
                .filter(|said| matches!(said, Said::Status(NvmlStatus::Ready { .. })))
                .count()
        };
        let too_few = |said: &mut Vec<Said>| ready(said) < n;
        let (said, _) = self
            .changed
            .wait_timeout_while(said, PATIENCE, too_few)
            .unwrap();
        assert!(ready(&said) >= n, "not ready: {:?}", said.last());
    }

    #[track_caller]
    pub(crate) fn missing_after(&self, start: usize) -> String {
        self.wait_after(start, |said| {
            let NvmlStatus::Missing { why } = said.status()? else {
                return None;
            };
            Some(why.clone())
        })
    }

    #[track_caller]
    pub(crate) fn observed_after(&self, start: usize, kind: SignalKind) -> Observation {
        self.wait_after(start, |said| {
            said.observed().filter(|seen| seen.kind == kind).cloned()
        })
    }

    pub(crate) fn observations(&self, kind: SignalKind) -> Vec<Observation> {
        let said = self.said();
        said.iter()
            .filter_map(Said::observed)
            .filter(|seen| seen.kind == kind)
            .cloned()
            .collect()
    }

    /// The newest inventory entry of the GPU with NVML's index.
    #[track_caller]
    pub(crate) fn gpu(&self, index: u32) -> DeviceUuid {
        self.wait_for(|said| {
            let (info, _) = said.found()?;
            (info.index == Some(index)).then(|| info.uuid.clone())
        })
    }

    /// Waits for samples of the GPU that satisfy `wanted`.
    #[track_caller]
    pub(crate) fn sampled_after(
        &self,
        start: usize,
        gpu: &DeviceUuid,
        wanted: impl Fn(&Samples) -> bool,
    ) {
        self.wait_after(start, |said| {
            let Said::Sampled(uuid, samples) = said else {
                return None;
            };
            (uuid == gpu && wanted(samples)).then_some(())
        });
    }
}

impl SignalSink for Recorder {
    fn log_read(&self, position: device_api_core::durable::LogPosition) {
        panic!("NVML reads no kernel log: {position:?}");
    }
    fn observe(&self, observation: Observation) {
        self.record(Said::Observed(observation));
    }

    fn device_found(&self, device: DeviceInfo, samples: Arc<Samples>) {
        self.record(Said::Found(device, samples));
    }

    fn sampled(&self, uuid: &DeviceUuid, samples: Arc<Samples>) {
        self.record(Said::Sampled(uuid.clone(), samples));
    }

    fn probing(&self, candidates: &[DeviceUuid]) {
        self.record(Said::Probing(candidates.to_vec()));
    }

    fn probed(&self, uuid: &DeviceUuid) {
        self.record(Said::Probed(uuid.clone()));
    }
}

impl NvmlObserver for Recorder {
    fn nvml_status(&self, status: NvmlStatus) {
        self.record(Said::Status(status));
    }
}
