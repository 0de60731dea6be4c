//! Builds the examples in other languages, under cargo's target directory, once for all tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
pub(crate) use device_api_tests::tools::root;
use device_api_tests::tools::{skip, works};

const PROTOS: [&str; 2] = [
    "nvidia/device/v1alpha1/device.proto",
    "nvidia/nvsentinel/v1alpha1/gpu.proto",
];

/// What is built for one language; locked, since tests may be processes of their own.
fn workshop(name: &str) -> Result<(PathBuf, File)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("examples")
        .join(name);
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    Ok((folder, lock))
}

/// Runs it and keeps what it said.
fn run(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("running {command:?}"))
}

pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let output = run(command)?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The folder with the programs of a Go module; `None` where there is no Go, or its modules can't be had.
///
/// # Errors
/// The module does not build.
pub(crate) fn go(module: &str) -> Result<Option<PathBuf>> {
    let (folder, _lock) = workshop(&module.replace('/', "-"))?;
    let module = root()?.join(module);
    let go = || {
        let mut command = Command::new("go");
        command.arg("-C").arg(&module);
        command
    };
    // Both take what is in the module cache; only what is missing is fetched.
    for needed in [["version", ""], ["mod", "download"]] {
        let words = needed.into_iter().filter(|word| !word.is_empty());
        if let Err(why) = works(go().args(words)) {
            return skip(&format!("no Go examples: {why}"));
        }
    }
    succeed(go().args(["vet", "./..."]))?;
    let mut out = folder.clone().into_os_string();
    // A slash at its end says that it is a folder.
    out.push("/");
    succeed(
        go().args(["build", "-trimpath", "-buildvcs=false", "-o"])
            .arg(out)
            .arg("./..."),
    )?;
    Ok(Some(folder))
}

/// A Python with gRPC, and the generated code.
pub(crate) struct Python {
    interpreter: PathBuf,
    generated: PathBuf,
    scripts: PathBuf,
}

impl Python {
    /// One of `examples/python`.
    pub(crate) fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command
            .arg(self.scripts.join(name))
            .env("PYTHONPATH", &self.generated)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// `None` where there is no Python 3, or its packages can't be had.
///
/// # Errors
/// The protos do not compile.
pub(crate) fn python() -> Result<Option<Python>> {
    let (folder, _lock) = workshop("python")?;
    let scripts = root()?.join("examples/python");
    let (venv, generated) = (folder.join("venv"), folder.join("generated"));
    let interpreter = venv.join("bin/python");
    let requirements = fs::read_to_string(scripts.join("requirements.txt"))?;
    // Written last, so that a run that was cut short is done again.
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&requirements) {
        let make = works(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        );
        let install = || {
            works(
                Command::new(&interpreter)
                    .args(["-m", "pip", "install", "--quiet", "--requirement"])
                    .arg(scripts.join("requirements.txt")),
            )
        };
        if let Err(why) = make.and_then(|()| install()) {
            return skip(&format!("no Python examples: {why}"));
        }
        fs::write(&stamp, requirements)?;
    }
    fs::create_dir_all(&generated)?;
    succeed(
        Command::new(&interpreter)
            .args(["-m", "grpc_tools.protoc", "-I"])
            .arg(root()?.join("proto"))
            .arg(format!("--python_out={}", generated.display()))
            .arg(format!("--grpc_python_out={}", generated.display()))
            .args(PROTOS),
    )?;
    Ok(Some(Python {
        interpreter,
        generated,
        scripts,
    }))
}
