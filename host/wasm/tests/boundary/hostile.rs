//! Guests that mean harm in places where one does not look first. What is hit by a plain limit is in
//! `limits.rs`.

use std::time::{Duration, Instant};

use device_api_wasm::{CallError, Ctx, Engine, Limits, LoadError, Program, Sandbox, World};
use wasmtime::StoreContextMut;
use wasmtime::component::{InstancePre, Linker, TypedFunc};

use crate::world::{ENDLESS, call, component, once, program, refused, roomy, run, start, text};

/// Roomy, so that a busy machine does not decide the outcome.
const DEADLINE: Duration = Duration::from_millis(50);

fn short() -> Limits {
    Limits {
        call_deadline: DEADLINE,
        ..roomy()
    }
}

/// A component of one module with `realloc` and `post-return`, which asks the host for a string.
fn asking(realloc: &str, post_return: &str) -> Vec<u8> {
    text(&format!(
        r#"(component
          (import "test:world/host@0.1.0" (instance $host (export "give" (func (result string)))))
          (core module $libc (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
          (core instance $libc (instantiate $libc))
          (core func $give (canon lower (func $host "give")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
          (core module $m
            (import "host" "give" (func $give (param i32)))
            (import "libc" "memory" (memory 1))
            (func (export "run") (result i32) (call $give (i32.const 16)) (i32.load (i32.const 20)))
            (func (export "after") (param i32) {post_return}))
          (core instance $m (instantiate $m
            (with "libc" (instance $libc))
            (with "host" (instance (export "give" (func $give))))))
          (func (export "run") (result u32)
            (canon lift (core func $m "run") (post-return (core func $m "after")))))"#
    ))
}

fn is_stopped_at_the_deadline(bytes: &[u8]) {
    let error = once(bytes, short()).unwrap_err();
    let CallError::Deadline { limit, wall, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(limit, DEADLINE);
    assert!((DEADLINE..20 * DEADLINE).contains(&wall), "{wall:?}");
}

#[test]
fn h1_an_endless_loop_in_realloc_is_stopped() {
    // What the host gives has 19 bytes, so a guest that plays along answers that.
    assert_eq!(once(&asking("i32.const 64", ""), short()), Ok(19));
    is_stopped_at_the_deadline(&asking(ENDLESS, ""));
}

#[test]
fn h1_an_endless_loop_in_post_return_is_stopped() {
    is_stopped_at_the_deadline(&asking("i32.const 64", "(loop (br 0))"));
}

#[test]
fn h1_a_realloc_that_lies_gets_nothing() {
    for place in ["0xffffffff", "65535"] {
        let error = once(&asking(&format!("i32.const {place}"), ""), short()).unwrap_err();
        assert!(
            error.to_string().contains("beyond end of memory"),
            "{error}"
        );
    }
    let error = once(&asking("unreachable", ""), short()).unwrap_err();
    assert_eq!(error.kind(), "trap", "{error:?}");
    let error = once(&asking("i32.const 64", "unreachable"), short()).unwrap_err();
    assert_eq!(error.kind(), "trap", "{error:?}");
}

/// Each takes milliseconds, and no tick interrupts it.
#[test]
fn h2_instructions_over_all_memory_are_stopped_between_two() {
    const BYTES: usize = 16 << 20;
    for instruction in [
        format!("(memory.fill (i32.const 0) (i32.const 7) (i32.const {BYTES}))"),
        format!(
            "(memory.copy (i32.const 1) (i32.const 0) (i32.const {}))",
            BYTES - 1
        ),
    ] {
        let body = format!(
            r#"(func (export "run") (result i32) (loop {instruction} (br 0)) i32.const 0)"#
        );
        is_stopped_at_the_deadline(&component(256, &body));
    }
}

#[test]
fn h2_thousands_of_instances_are_refused() {
    let of = |many: usize| {
        let many = "(core instance (instantiate $a))".repeat(many);
        text(&format!(
            r#"(component (core module $a) {many}
              (core module $m (func (export "run") (result i32) i32.const 0)) (core instance $m (instantiate $m))
              (func (export "run") (result u32) (canon lift (core func $m "run"))))"#
        ))
    };
    let begun = Instant::now();
    assert!(matches!(refused(&of(5_000)), LoadError::Invalid(_)));
    let error = start(&program(&of(900), roomy())).unwrap_err();
    assert_eq!(error.kind(), "instantiate");
    assert!(
        error.to_string().contains("instance count too high at 65"),
        "{error}"
    );
    start(&program(&of(63), roomy())).unwrap();
    let took = begun.elapsed();
    assert!(took < roomy().start_deadline, "{took:?}");
}

#[test]
fn h2_many_memories_and_tables_are_refused_however_small() {
    for (what, all) in [
        ("memories", "(memory 0)".repeat(100)),
        ("tables", "(table 0 funcref)".repeat(100)),
    ] {
        let bytes = text(&format!(
            r#"(component (core module $a {all}) (core instance (instantiate $a))
              (core module $m (func (export "run") (result i32) i32.const 0)) (core instance $m (instantiate $m))
              (func (export "run") (result u32) (canon lift (core func $m "run"))))"#
        ));
        let error = start(&program(&bytes, roomy())).unwrap_err();
        assert_eq!(error.kind(), "instantiate", "{what}: {error}");
    }
}

#[test]
fn h2_a_huge_minimum_table_is_refused_at_the_start() {
    let body = r#"(table 10000000 funcref) (func (export "run") (result i32) i32.const 0)"#;
    let error = start(&program(&component(1, body), roomy())).unwrap_err();
    assert!(
        matches!(
            error,
            CallError::TableLimit {
                wanted: 10_000_000,
                limit: 65_536,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn h2_memory_and_tables_that_grow_bit_by_bit_end_at_the_limit() {
    let pages = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (memory.size)";
    assert_eq!(once(&run(pages), roomy()), Ok(256));
    let body = r#"(table $t 0 funcref) (func (export "run") (result i32)
      (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))
      (table.size $t))"#;
    assert_eq!(once(&component(1, body), roomy()), Ok(65_536));
}

#[test]
fn h2_a_million_host_calls_end_at_the_limit() {
    let calls = "(local.set $i (i32.const 1000000))
      (loop $next (call $tick) (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $next (local.get $i)))
      i32.const 0";
    let mut sandbox = start(&program(&run(calls), roomy())).unwrap();
    assert_eq!(
        call(&mut sandbox),
        Err(CallError::HostCalls { limit: 4_096 })
    );
    assert_eq!(sandbox.data().ticks, 4_096);
}

#[test]
fn h2_recursion_through_a_table_ends_in_a_stack_error() {
    let body = r#"(type $f (func (param i64 i64 i64 i64) (result i64))) (table $t 1 funcref)
      (elem (i32.const 0) $deep)
      (func $deep (type $f)
        (i64.add (local.get 3) (call_indirect $t (type $f)
          (local.get 1) (local.get 2) (local.get 3) (i64.add (local.get 0) (i64.const 1)) (i32.const 0))))
      (func (export "run") (result i32)
        (i32.wrap_i64 (call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4))))"#;
    let error = once(&component(1, body), roomy()).unwrap_err();
    assert!(matches!(error, CallError::Stack { .. }), "{error:?}");
}

/// A world whose guests answer texts.
struct Speaking;

impl World for Speaking {
    const NAME: &'static str = "test:world/speaking@0.1.0";
    type Data = ();
    type Linked = InstancePre<Ctx<()>>;
    type Guest = TypedFunc<(), (Vec<String>,)>;

    fn imports() -> &'static [&'static str] {
        &[]
    }

    fn exports() -> &'static [&'static str] {
        &["say"]
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
        instance.get_typed_func(&mut store, "say")
    }
}

/// Says `times` texts of `bytes` bytes each, all of them the same bytes of its memory.
fn said(pages: u32, times: u32, bytes: u32, limits: Limits) -> Result<usize, CallError> {
    let component = text(&format!(
        r#"(component (core module $m (memory (export "memory") {pages})
            (func (export "say") (result i32) (local $i i32)
              (loop $next
                (i32.store offset=65536 (i32.mul (local.get $i) (i32.const 8)) (i32.const 0))
                (i32.store offset=65540 (i32.mul (local.get $i) (i32.const 8)) (i32.const {bytes}))
                (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {times}))))
              (i32.store (i32.const 8) (i32.const 65536)) (i32.store (i32.const 12) (i32.const {times}))
              i32.const 8))
          (core instance $m (instantiate $m))
          (func (export "say") (result (list string))
            (canon lift (core func $m "say") (memory (core memory $m "memory")))))"#
    ));
    let program =
        Program::<Speaking>::link(&Engine::new().unwrap().load(&component, limits).unwrap())
            .unwrap();
    let (mut sandbox, ()) = Sandbox::start(&program, (), |_, _| Ok(()))?;
    let (texts,) = sandbox.call(|store, say| say.call(store, ()))?;
    Ok(texts.iter().map(String::len).sum())
}

#[test]
fn h2_a_text_of_100_megabytes_is_not_copied() {
    let wide = Limits {
        memory_bytes_max: 256 << 20,
        ..roomy()
    };
    assert_eq!(said(3, 2, 1000, wide), Ok(2000));
    let error = said(1700, 1, 100_000_000, wide).unwrap_err();
    assert_eq!(error.kind(), "crossing-limit", "{error}");
    // Where its memory is smaller than what it says, it lies.
    let error = said(3, 1, 100_000_000, roomy()).unwrap_err();
    assert!(error.to_string().contains("out of bounds"), "{error}");
}

#[test]
fn h2_few_bytes_that_describe_many_are_not_copied() {
    // 8,000 texts of 64 KiB, in 128 KiB of memory.
    let begun = Instant::now();
    let error = said(3, 8_000, 65_000, roomy()).unwrap_err();
    assert_eq!(error.kind(), "crossing-limit", "{error}");
    assert!(
        begun.elapsed() < roomy().start_deadline,
        "{:?}",
        begun.elapsed()
    );
}
