//! Small components that call WASI in ways that no standard library does.

use std::time::Duration;

use device_api_wasm::CallError;
use device_api_wasm::wasi::{self, Stream};

use crate::world::{run, start};

/// A component whose `run` has these instructions, with the functions that they call.
fn guest(instructions: &str) -> String {
    format!(
        r#"(component
      (import "wasi:io/poll@0.2.3" (instance $poll
        (export "pollable" (type $pollable (sub resource)))
        (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
        (export "[method]pollable.ready" (func (param "self" (borrow $pollable)) (result bool)))
        (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
      (alias export $poll "pollable" (type $pollable))
      (import "wasi:clocks/monotonic-clock@0.2.3" (instance $clock
        (alias outer 1 $pollable (type $outer))
        (export "pollable" (type $p (eq $outer)))
        (export "now" (func (result u64)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
      (import "wasi:random/random@0.2.3" (instance $random
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
        (export "get-random-u64" (func (result u64)))))
      (import "wasi:io/error@0.2.3" (instance $errors (export "error" (type (sub resource)))))
      (alias export $errors "error" (type $error))
      (import "wasi:io/streams@0.2.3" (instance $streams
        (alias outer 1 $error (type $outer-error))
        (export "error" (type $e (eq $outer-error)))
        (export "output-stream" (type $output (sub resource)))
        (type $failed' (variant (case "last-operation-failed" (own $e)) (case "closed")))
        (export "stream-error" (type $failed (eq $failed')))
        (export "[method]output-stream.write" (func
          (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $failed)))))))
      (alias export $streams "output-stream" (type $output))
      (import "wasi:cli/stderr@0.2.3" (instance $stderr
        (alias outer 1 $output (type $outer))
        (export "output-stream" (type $o (eq $outer)))
        (export "get-stderr" (func (result (own $o))))))
      (core module $libc
        (memory (export "memory") 2)
        (data (i32.const 0) "one\n\ntwo ")
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
      (core instance $libc (instantiate $libc))
      (alias core export $libc "memory" (core memory $memory))
      (alias core export $libc "realloc" (core func $realloc))
      (core func $block (canon lower (func $poll "[method]pollable.block")))
      (core func $ready (canon lower (func $poll "[method]pollable.ready")))
      (core func $poll (canon lower (func $poll "poll") (memory $memory) (realloc $realloc)))
      (core func $now (canon lower (func $clock "now")))
      (core func $timer (canon lower (func $clock "subscribe-duration")))
      (core func $bytes (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))
      (core func $number (canon lower (func $random "get-random-u64")))
      (core func $stderr (canon lower (func $stderr "get-stderr")))
      (core func $write (canon lower (func $streams "[method]output-stream.write") (memory $memory)))
      (core func $drop (canon resource.drop $pollable))
      (core module $m
        (import "libc" "memory" (memory 2))
        (import "wasi" "block" (func $block (param i32)))
        (import "wasi" "ready" (func $ready (param i32) (result i32)))
        (import "wasi" "poll" (func $poll (param i32 i32 i32)))
        (import "wasi" "now" (func $now (result i64)))
        (import "wasi" "timer" (func $timer (param i64) (result i32)))
        (import "wasi" "bytes" (func $bytes (param i64 i32)))
        (import "wasi" "number" (func $number (result i64)))
        (import "wasi" "stderr" (func $stderr (result i32)))
        (import "wasi" "write" (func $write (param i32 i32 i32 i32)))
        (import "wasi" "drop" (func $drop (param i32)))
        (func (export "run") (result i64) (local $a i32) (local $b i32) (local $t i64) {instructions}))
      (core instance $m (instantiate $m
        (with "libc" (instance $libc))
        (with "wasi" (instance
          (export "block" (func $block)) (export "ready" (func $ready)) (export "poll" (func $poll))
          (export "now" (func $now)) (export "timer" (func $timer))
          (export "bytes" (func $bytes)) (export "number" (func $number))
          (export "stderr" (func $stderr)) (export "write" (func $write)) (export "drop" (func $drop))))))
      (func (export "run") (result u64) (canon lift (core func $m "run"))))"#
    )
}

#[track_caller]
fn stopped(instructions: &str, words: &str) {
    let error = run(&mut start(&guest(instructions))).unwrap_err();
    assert!(matches!(error, CallError::Host { .. }), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

const HOUR_NS: u64 = 3_600_000_000_000;

#[test]
fn h1_a_wait_takes_no_time_and_moves_the_clock() {
    let mut sandbox = start(&guest(&format!(
        "(local.set $t (call $now))
         (call $block (call $timer (i64.const {HOUR_NS})))
         (i64.sub (call $now) (local.get $t))"
    )));
    let passed_ns = run(&mut sandbox).unwrap();
    assert!(
        (HOUR_NS..HOUR_NS + 1_000_000).contains(&passed_ns),
        "{passed_ns}"
    );
    assert!(sandbox.last_stats().wall < Duration::from_secs(60));
}

#[test]
fn h1_the_first_of_several_timers_is_the_ready_one() {
    // The list of two handles at 256, the answer's pointer and length at 512.
    let instructions = format!(
        "(local.set $a (call $timer (i64.const {HOUR_NS})))
         (local.set $b (call $timer (i64.const 5)))
         (i32.store (i32.const 256) (local.get $a)) (i32.store (i32.const 260) (local.get $b))
         (call $poll (i32.const 256) (i32.const 2) (i32.const 512))
         ;; how many, which one, and is the other ready
         (i64.add (i64.mul (i64.load32_u (i32.const 516)) (i64.const 100))
           (i64.add (i64.mul (i64.load32_u (i32.load (i32.const 512))) (i64.const 10))
             (i64.extend_i32_u (call $ready (local.get $a)))))"
    );
    assert_eq!(run(&mut start(&guest(&instructions))).unwrap(), 110);
}

#[test]
fn polling_nothing_would_never_end() {
    stopped(
        "(call $poll (i32.const 256) (i32.const 0) (i32.const 512)) (i64.const 0)",
        "polls nothing at all",
    );
}

#[test]
fn pollables_are_bounded_and_a_dropped_one_makes_room() {
    let in_a_loop = |work: &str| {
        format!(
            "(loop $next {work}
               (local.set $b (i32.add (local.get $b) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $b) (i32.const 1500))))
             (i64.extend_i32_u (local.get $b))"
        )
    };
    let dropped = in_a_loop("(call $drop (call $timer (i64.const 1)))");
    assert_eq!(run(&mut start(&guest(&dropped))).unwrap(), 1500);
    let kept = in_a_loop("(drop (call $timer (i64.const 1)))");
    assert!(run(&mut start(&guest(&kept))).is_err());
}

#[test]
fn random_numbers_are_the_same_in_a_replay_and_differ_within_a_call() {
    let mut sandbox = start(&guest("(i64.xor (call $number) (call $number))"));
    let first = run(&mut sandbox).unwrap();
    assert_ne!(first, 0);
    sandbox.data_mut().begin();
    assert_eq!(run(&mut sandbox).unwrap(), first);
    // Without a new beginning they go on.
    assert_ne!(run(&mut sandbox).unwrap(), first);
}

#[test]
fn too_much_at_once_is_refused() {
    stopped(
        "(call $bytes (i64.const 100000000000) (i32.const 512)) (i64.const 0)",
        "100000000000 random bytes at once, and gets 65536",
    );
    stopped(
        "(call $write (call $stderr) (i32.const 0) (i32.const 4097) (i32.const 512)) (i64.const 0)",
        "wrote 4097 bytes at once, and check-write permits 4096",
    );
}

#[test]
fn every_call_is_charged() {
    for call in [
        "(drop (call $now))",
        "(drop (call $number))",
        "(call $drop (call $timer (i64.const 1)))",
    ] {
        let endless = format!("(loop $again {call} (br $again)) (unreachable)");
        let error = run(&mut start(&guest(&endless))).unwrap_err();
        assert!(
            matches!(error, CallError::HostCalls { .. }),
            "{call}: {error}"
        );
    }
}

#[test]
fn lines_go_out_whole_and_the_rest_with_the_end_of_the_call() {
    let mut sandbox = start(&guest(
        "(call $write (call $stderr) (i32.const 0) (i32.const 9) (i32.const 512)) (i64.const 0)",
    ));
    run(&mut sandbox).unwrap();
    let line = |text: &str| (Stream::Stderr, text.to_owned());
    assert_eq!(sandbox.data().lines, [line("one")]);
    wasi::flush(sandbox.data_mut());
    assert_eq!(sandbox.data().lines, [line("one"), line("two")]);
}
