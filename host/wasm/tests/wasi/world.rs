//! A world of WASI alone, whose guests export `run`.

use std::time::Duration;

use device_api_wasm::wasi::{self, Stream, Wasi, WasiHost};
use device_api_wasm::{CallError, Ctx, Engine, Limits, LoadError, Program, Sandbox, World};
use wasmtime::StoreContextMut;
use wasmtime::component::{InstancePre, Linker, TypedFunc, types};

/// What a guest wrote.
#[derive(Debug, Default)]
pub(crate) struct Data {
    wasi: Wasi,
    pub(crate) lines: Vec<(Stream, String)>,
}

impl WasiHost for Data {
    fn wasi(&mut self) -> &mut Wasi {
        &mut self.wasi
    }

    fn now_ms(&self) -> u64 {
        1_700_000_000_123
    }

    fn seed(&self) -> u64 {
        7
    }

    fn line(&mut self, stream: Stream, text: &str) {
        self.lines.push((stream, text.to_owned()));
    }
}

/// `EXPORTS`: how many functions a guest has to export: none, or `run`.
pub(crate) struct Wasis<const EXPORTS: usize>;

impl<const EXPORTS: usize> World for Wasis<EXPORTS> {
    const NAME: &'static str = "test:wasi/world";
    type Data = Data;
    type Linked = InstancePre<Ctx<Data>>;
    type Guest = Option<TypedFunc<(), (u64,)>>;

    fn imports() -> &'static [&'static str] {
        wasi::INTERFACES
    }

    fn exports() -> &'static [&'static str] {
        if EXPORTS == 0 { &[] } else { &["run"] }
    }

    fn add_to_linker(_: &mut Linker<Ctx<Data>>) -> wasmtime::Result<()> {
        Ok(())
    }

    fn add_wasi_to_linker(
        linker: &mut Linker<Ctx<Data>>,
        component: &types::Component,
    ) -> wasmtime::Result<()> {
        wasi::add_to_linker(linker, component)
    }

    fn prepare(pre: InstancePre<Ctx<Data>>) -> wasmtime::Result<Self::Linked> {
        Ok(pre)
    }

    fn instantiate(
        mut store: StoreContextMut<'_, Ctx<Data>>,
        linked: &Self::Linked,
    ) -> wasmtime::Result<Self::Guest> {
        let instance = linked.instantiate(&mut store)?;
        Ok(instance.get_typed_func(&mut store, "run").ok())
    }
}

/// The defaults with time to spare: a busy machine must not decide what is not about time.
fn roomy() -> Limits {
    Limits {
        call_deadline: Duration::from_secs(1),
        start_deadline: Duration::from_secs(10),
        ..Limits::default()
    }
}

pub(crate) type Run = Sandbox<Wasis<1>>;

pub(crate) fn link<const EXPORTS: usize>(text: &str) -> Result<Program<Wasis<EXPORTS>>, LoadError> {
    let bytes = wat::parse_str(text).unwrap();
    let loaded = Engine::new().unwrap().load(&bytes, roomy())?;
    Program::link(&loaded)
}

pub(crate) fn start(text: &str) -> Run {
    let program = link(text)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    Sandbox::start(&program, Data::default(), |_, _| Ok(()))
        .unwrap()
        .0
}

/// One call of `run`.
pub(crate) fn run(sandbox: &mut Run) -> Result<u64, CallError> {
    sandbox.call(|store, run| {
        let run = run.as_ref().expect("it exports run");
        Ok(run.call(store, ())?.0)
    })
}

impl Data {
    /// A new call.
    pub(crate) fn begin(&mut self) {
        self.wasi.begin();
    }
}
