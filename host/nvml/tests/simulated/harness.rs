//! A process per test, a line to the simulation, and a sink that remembers.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{NvmlObserver, NvmlStatus, Pending, SignalSink};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples, SignalKind, Value};
use device_api_nvml::{Config, Handle, Nvml};

const LIBRARY: &str = "NVML_TEST_LIBRARY";
const SOCKET: &str = "NVML_SIM_SOCKET";

const INTERVAL: Duration = Duration::from_millis(50);

/// Nothing that is waited for takes more than about a second; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` in a process of its own, whose simulated NVML listens to [`Sim::ask`]. `name` is the
/// test's, with its module.
#[track_caller]
pub(crate) fn isolated(name: &str, body: impl FnOnce(&Sim)) {
    isolated_with(name, &[], body);
}

/// The same, with settings of the simulation.
#[track_caller]
pub(crate) fn isolated_with(name: &str, settings: &[(&str, &str)], body: impl FnOnce(&Sim)) {
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
        .envs(settings.iter().copied())
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
            poll_interval: INTERVAL,
            fault_interval: INTERVAL,
            counter_interval: INTERVAL,
            limit_interval: INTERVAL,
            inventory_interval: INTERVAL,
            ..Config::default()
        }
    }

    /// Starts the source and waits until it is ready.
    pub(crate) fn start(&self, config: Config) -> (Arc<Recorder>, Handle) {
        let (recorder, handle) = start(config);
        recorder.ready(1);
        (recorder, handle)
    }

    /// The library as an older driver's branch had it: without the functions that came later.
    #[track_caller]
    pub(crate) fn old_library(&self, branch: u32, folder: &Path) -> PathBuf {
        let copy = folder.join(format!("libnvidia-ml.so.{branch}"));
        let copied = Command::new(self.library.with_file_name("nvml-sim"))
            .args(["old-library", "--driver", &branch.to_string()])
            .args([OsStr::new("--library"), self.library.as_os_str()])
            .arg(&copy)
            .output()
            .unwrap();
        assert!(copied.status.success(), "{copied:?}");
        copy
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

/// Waits until `done` says so; for what nobody is told of.
#[track_caller]
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Waits for an answer that is to come.
pub(crate) fn wait<T>(mut pending: Pending<T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match pending.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

/// The value of a reading.
pub(crate) fn value(samples: &Samples, key: &str) -> Option<Value> {
    let reading = samples[key].as_ref().ok();
    reading.map(|reading| reading.value.clone())
}

/// What the source said, in that order.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Observed(Observation),
    Found(Box<DeviceInfo>, Arc<Samples>),
    Sampled(DeviceUuid, Arc<Samples>),
    Probing(Vec<DeviceUuid>),
    Probed(DeviceUuid),
    Recovered(Box<(DeviceUuid, Recovery, String)>),
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

    pub(crate) fn recovered(&self) -> Option<&(DeviceUuid, Recovery, String)> {
        if let Self::Recovered(recovered) = self {
            Some(recovered)
        } else {
            None
        }
    }

    pub(crate) fn probing(&self) -> Option<&[DeviceUuid]> {
        if let Self::Probing(candidates) = self {
            Some(candidates)
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

    /// What recoveries were told of, in that order.
    pub(crate) fn recoveries(&self) -> Vec<(DeviceUuid, Recovery, String)> {
        let said = self.said();
        said.iter().filter_map(Said::recovered).cloned().collect()
    }

    #[track_caller]
    pub(crate) fn recovered_after(
        &self,
        start: usize,
        gpu: &DeviceUuid,
        wanted: &Recovery,
    ) -> String {
        self.wait_after(start, |said| {
            let (uuid, recovery, evidence) = said.recovered()?;
            (uuid == gpu && recovery == wanted).then(|| evidence.clone())
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
        self.record(Said::Found(Box::new(device), samples));
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

    fn recovered(&self, uuid: &DeviceUuid, recovery: Recovery, evidence: &str) {
        let recovered = Box::new((uuid.clone(), recovery, evidence.to_owned()));
        self.record(Said::Recovered(recovered));
    }
}

impl NvmlObserver for Recorder {
    fn nvml_status(&self, status: NvmlStatus) {
        self.record(Said::Status(status));
    }
}
