//! A compiler over a fresh directory, and components to give it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use device_api_wasm::{
    Compiler, CompilerError, CompilerSettings, Engine, Limits, LoadError, Loaded, Worker,
};

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn worker() -> Worker {
    Worker {
        program: env!("CARGO_BIN_EXE_compile-worker").into(),
        args: Vec::new(),
    }
}

pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) engine: Engine,
    pub(crate) settings: CompilerSettings,
}

impl House {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            settings: CompilerSettings {
                worker: worker(),
                cache_dir: Some(folder.path().join("code")),
                memory_bytes_max: 512 << 20,
                deadline: PATIENCE,
            },
            folder,
            engine: Engine::new().unwrap(),
        }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("code")
    }

    /// The files of the cache.
    pub(crate) fn cached(&self) -> Vec<PathBuf> {
        files(&self.cache())
    }

    pub(crate) fn open(&self) -> Result<Compiler, CompilerError> {
        Compiler::new(self.engine.clone(), self.settings.clone())
    }

    pub(crate) fn compiler(&self) -> Compiler {
        self.open().unwrap()
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

pub(crate) fn load(compiler: &Compiler, bytes: &[u8]) -> Result<Loaded, LoadError> {
    compiler.load(bytes, Limits::default())
}

pub(crate) fn text(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// A component that answers `number`.
pub(crate) fn small(number: u32) -> Vec<u8> {
    text(&format!(
        r#"(component (core module $m (func (export "run") (result i32) i32.const {number}))
          (core instance $m (instantiate $m)) (func (export "run") (result u32) (canon lift (core func $m "run"))))"#
    ))
}

/// A small component that takes a gigabyte to compile: one large function.
pub(crate) fn large() -> Vec<u8> {
    tangle(2_000, 20_000)
}

/// A component that takes minutes to compile, with little memory: the same function three hundred times,
/// each in a module of its own.
pub(crate) fn slow() -> Vec<u8> {
    let once = tangle(300, 3_000);
    let (head, module) = once.split_at(8);
    [head, &module.repeat(300)].concat()
}

/// One function of so many blocks, each of which uses what was computed in others.
fn tangle(locals: usize, blocks: usize) -> Vec<u8> {
    let mut body = format!("(func (param i32) (local {})", " i32".repeat(locals));
    for block in 0..blocks {
        let (a, b) = (1 + block % locals, 1 + (block * 7 + 3) % locals);
        body.push_str(&format!(
            "(if (local.get {a}) (then (local.set {b} (i32.add (local.get {b}) (local.get 0)))))"
        ));
    }
    body.push(')');
    text(&format!("(component (core module {body}))"))
}

/// An error as a log line shows it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let below = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", below.unwrap_or_default())
}
