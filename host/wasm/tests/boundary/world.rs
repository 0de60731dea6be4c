//! A world of one interface with three functions and one export, and components for it.

use std::time::Duration;

use device_api_wasm::{CallError, Ctx, Engine, Limits, LoadError, Program, Sandbox, World};
use wasmtime::StoreContextMut;
use wasmtime::component::{InstancePre, Linker, TypedFunc};

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ticks: u32,
    pub(crate) bytes: usize,
}

pub(crate) struct TestWorld;

/// The defaults with time to spare: a busy machine must not decide what is not about time.
pub(crate) fn roomy() -> Limits {
    Limits {
        call_deadline: Duration::from_secs(1),
        start_deadline: Duration::from_secs(10),
        ..Limits::default()
    }
}

pub(crate) type Run = TypedFunc<(), (u32,)>;

impl World for TestWorld {
    const NAME: &'static str = "test:world/tests@0.1.0";
    type Data = Seen;
    type Linked = InstancePre<Ctx<Seen>>;
    type Guest = Run;

    fn imports() -> &'static [&'static str] {
        &["test:world/host@0.1.0"]
    }

    fn exports() -> &'static [&'static str] {
        &["run"]
    }

    fn add_to_linker(linker: &mut Linker<Ctx<Seen>>) -> wasmtime::Result<()> {
        let mut host = linker.instance("test:world/host@0.1.0")?;
        host.func_wrap(
            "tick",
            |mut store: StoreContextMut<'_, Ctx<Seen>>, (): ()| {
                store.data_mut().charge_host_call()?;
                store.data_mut().data.ticks += 1;
                Ok(())
            },
        )?;
        host.func_wrap(
            "take",
            |mut store: StoreContextMut<'_, Ctx<Seen>>, (text,): (String,)| {
                store.data_mut().charge_host_call()?;
                store.data_mut().data.bytes += text.len();
                Ok(())
            },
        )?;
        host.func_wrap(
            "give",
            |mut store: StoreContextMut<'_, Ctx<Seen>>, (): ()| {
                store.data_mut().charge_host_call()?;
                Ok(("what the host gives".to_owned(),))
            },
        )?;
        host.func_wrap(
            "boom",
            |_: StoreContextMut<'_, Ctx<Seen>>, (): ()| -> wasmtime::Result<()> {
                panic!("the host's own mistake")
            },
        )
    }

    fn prepare(pre: InstancePre<Ctx<Seen>>) -> wasmtime::Result<Self::Linked> {
        Ok(pre)
    }

    fn instantiate(
        mut store: StoreContextMut<'_, Ctx<Seen>>,
        pre: &Self::Linked,
    ) -> wasmtime::Result<Run> {
        let instance = pre.instantiate(&mut store)?;
        instance.get_typed_func(&mut store, "run")
    }
}

/// A component of one module with all host functions at hand, and `pages` of memory.
pub(crate) fn component(pages: u32, body: &str) -> Vec<u8> {
    text(&format!(
        r#"(component
          (import "test:world/host@0.1.0" (instance $host
            (export "tick" (func)) (export "take" (func (param "text" string))) (export "boom" (func))))
          (core module $libc (memory (export "memory") {pages}))
          (core instance $libc (instantiate $libc))
          (core func $tick (canon lower (func $host "tick")))
          (core func $take (canon lower (func $host "take") (memory (core memory $libc "memory"))))
          (core func $boom (canon lower (func $host "boom")))
          (core module $m
            (import "host" "tick" (func $tick))
            (import "host" "take" (func $take (param i32 i32)))
            (import "host" "boom" (func $boom))
            (import "libc" "memory" (memory {pages}))
            {body})
          (core instance $m (instantiate $m
            (with "libc" (instance $libc))
            (with "host" (instance
              (export "tick" (func $tick)) (export "take" (func $take)) (export "boom" (func $boom))))))
          (func (export "run") (result u32) (canon lift (core func $m "run"))))"#
    ))
}

/// The same with a `run` of these instructions, which leave an `i32`.
pub(crate) fn run(instructions: &str) -> Vec<u8> {
    component(
        1,
        &format!(r#"(func $run (export "run") (result i32) (local $i i32) {instructions})"#),
    )
}

pub(crate) const ENDLESS: &str = "(loop (br 0)) i32.const 0";

pub(crate) fn text(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

pub(crate) fn program_on(
    engine: &Engine,
    bytes: &[u8],
    limits: Limits,
) -> Result<Program<TestWorld>, LoadError> {
    Program::link(&engine.load(bytes, limits)?)
}

pub(crate) fn program(bytes: &[u8], limits: Limits) -> Program<TestWorld> {
    program_on(&Engine::new().unwrap(), bytes, limits).unwrap()
}

pub(crate) fn refused(bytes: &[u8]) -> LoadError {
    program_on(&Engine::new().unwrap(), bytes, roomy()).unwrap_err()
}

pub(crate) fn start(program: &Program<TestWorld>) -> Result<Sandbox<TestWorld>, CallError> {
    Sandbox::start(program, Seen::default(), |_, _| Ok(())).map(|(sandbox, ())| sandbox)
}

pub(crate) fn call(sandbox: &mut Sandbox<TestWorld>) -> Result<u32, CallError> {
    sandbox.call(|store, run| Ok(run.call(store, ())?.0))
}

/// Starts and calls once.
pub(crate) fn once(bytes: &[u8], limits: Limits) -> Result<u32, CallError> {
    call(&mut start(&program(bytes, limits)).unwrap())
}
