//! What becomes of instances where address space is limited (`ulimit -v`). Alone in its file: the limit
//! is the whole process's.

#![expect(clippy::unwrap_used, reason = "of a test's own means")]

use device_api_wasm::{Ctx, Engine, Limits, Program, Sandbox, World};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wasmtime::StoreContextMut;
use wasmtime::component::{InstancePre, Linker, TypedFunc};

struct Answers;

impl World for Answers {
    const NAME: &'static str = "test:world/answers";
    type Data = ();
    type Linked = InstancePre<Ctx<()>>;
    type Guest = TypedFunc<(), (u32,)>;

    fn imports() -> &'static [&'static str] {
        &[]
    }

    fn exports() -> &'static [&'static str] {
        &["run"]
    }

    fn add_to_linker(_: &mut Linker<Ctx<()>>) -> wasmtime::Result<()> {
        Ok(())
    }

    fn prepare(pre: InstancePre<Ctx<()>>) -> wasmtime::Result<Self::Linked> {
        Ok(pre)
    }

    fn instantiate(
        mut store: StoreContextMut<'_, Ctx<()>>,
        pre: &Self::Linked,
    ) -> wasmtime::Result<Self::Guest> {
        let instance = pre.instantiate(&mut store)?;
        instance.get_typed_func(&mut store, "run")
    }
}

fn mapped() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))
        .unwrap();
    line.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

const GIB: u64 = 1 << 30;

#[test]
fn h2_an_instance_without_room_is_refused_and_the_others_go_on() {
    let bytes = wat::parse_str(
        r#"(component (core module $m (memory 1) (func (export "run") (result i32) i32.const 42))
          (core instance $m (instantiate $m)) (func (export "run") (result u32) (canon lift (core func $m "run"))))"#,
    )
    .unwrap();
    let engine = Engine::new().unwrap();
    let loaded = engine.load(&bytes, Limits::default()).unwrap();
    let program = Program::<Answers>::link(&loaded).unwrap();
    let start = || Sandbox::start(&program, (), |_, _| Ok(())).map(|(sandbox, ())| sandbox);

    let before = mapped();
    let mut first = start().unwrap();
    let of_one = mapped() - before;
    // The memory, its two guards, and not much else.
    assert!((4 * GIB..4 * GIB + GIB / 4).contains(&of_one), "{of_one}");

    let unlimited = getrlimit(Resource::As);
    let room_for_one_more = Rlimit {
        current: Some(mapped() + of_one + GIB),
        ..unlimited
    };
    setrlimit(Resource::As, room_for_one_more).unwrap();
    let second = start().unwrap();
    let error = start().unwrap_err();
    assert_eq!(error.kind(), "instantiate", "{error:?}");
    assert!(error.to_string().contains("memory"), "{error}");
    assert_eq!(first.call(|store, run| run.call(store, ())), Ok((42,)));

    // What is given back is there again.
    drop(second);
    let mut third = start().unwrap();
    assert_eq!(third.call(|store, run| run.call(store, ())), Ok((42,)));
    setrlimit(Resource::As, unlimited).unwrap();
}
