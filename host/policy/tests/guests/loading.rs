//! What is refused before a policy may judge anything, in words that name the file.

use crate::component::{Memory, component, quiet};
use crate::house::{load, source, try_load};
use device_api_core::ports::Policy;

#[track_caller]
fn refused(bytes: Vec<u8>, words: &[&str]) {
    let error = try_load(&source(bytes)).unwrap_err().chain();
    assert!(error.starts_with("policy test.wasm "), "{error}");
    for word in words {
        assert!(error.contains(word), "{error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

/// A guest with this answer to `configure`.
fn configured(answer: impl FnOnce(&mut Memory) -> String) -> Vec<u8> {
    let mut memory = Memory::default();
    let configure = answer(&mut memory);
    component(&memory, &configure, "unreachable")
}

#[test]
fn a_policy_says_what_it_is() {
    let policy = load(quiet("calm", &["TestFault", "OtherFault"]));
    let info = policy.info();
    assert_eq!(
        (&*info.id.name, &*info.id.version, info.id.digest.len()),
        ("calm", "1.0.0", 64)
    );
    assert_eq!(
        (info.state_schema, info.subscriptions.len(), info.owns.len()),
        (1, 1, 2)
    );
    assert!(info.owned("OtherFault").unwrap().true_is_problem);
    assert_eq!(policy.origin(), "test.wasm");
}

#[test]
fn h1_other_files_are_refused_by_what_they_are() {
    refused(
        b"\0asm\x01\0\0\0".to_vec(),
        &["can't be loaded: it is a core WebAssembly module"],
    );
    refused(
        b"<html>".to_vec(),
        &["can't be loaded: it is not a WebAssembly component"],
    );
    let whole = quiet("calm", &[]);
    refused(whole[..whole.len() / 2].to_vec(), &["cut off after"]);
    let foreign = wat::parse_str(
        r#"(component (import "wasi:http/types@0.2.0" (instance (export "open" (func)))))"#,
    );
    refused(
        foreign.unwrap(),
        &["imports wasi:http/types@0.2.0, which this host does not offer"],
    );
    refused(
        wat::parse_str("(component)").unwrap(),
        &["does not export gpu:device-policy/policy@0.1.0"],
    );
}

#[test]
fn h1_another_version_of_the_contract_is_told_as_such() {
    let next = wat::parse_str(
        r#"(component (import "gpu:device-policy/host@0.2.0" (instance (export "log" (func)))))"#,
    );
    refused(
        next.unwrap(),
        &["is built for gpu:device-policy/host@0.2.0, this host offers 0.1.0"],
    );
}

#[test]
fn what_configure_makes_of_it_is_told() {
    refused(
        configured(|memory| {
            format!(
                "i32.const {}",
                memory.error("unknown key \"colour\": remove it")
            )
        }),
        &["refuses its configuration: unknown key \"colour\": remove it"],
    );
    refused(
        configured(|_| "unreachable".to_owned()),
        &["can't be configured: it trapped"],
    );
    refused(
        configured(|memory| format!("i32.const {}", memory.info("calm", &["Ready"]))),
        &["describes itself", "\"Ready\": belongs to the host"],
    );
    refused(
        configured(|memory| format!("i32.const {}", memory.info("", &[]))),
        &["info.name: is empty"],
    );
}

#[test]
fn there_is_no_state_while_configuring() {
    // `put` must be refused (tag 1 at 64), or the guest traps.
    let bytes = configured(|memory| {
        let (key, info) = (memory.push("k"), memory.info("calm", &[]));
        format!(
            "(call $put {key} (i32.const 0) (i32.const 1) (i32.const 64))
             (if (i32.eqz (i32.load8_u (i32.const 64))) (then unreachable)) i32.const {info}"
        )
    });
    load(bytes);
}

#[test]
fn h2_a_limit_that_it_ran_into_when_it_was_loaded_is_named_with_what_to_do() {
    #[track_caller]
    fn check(bytes: Vec<u8>, limit: (&str, &str), words: &[&str]) {
        let mut source = source(bytes);
        source.limits.set(limit.0, limit.1).unwrap();
        let error = try_load(&source).unwrap_err().chain();
        let advice = format!("or raise {} among its limits in policies.yaml", limit.0);
        for word in [words, &[&advice]].concat() {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    }
    let calm = || quiet("calm", &[]);
    check(
        calm(),
        ("memory-bytes-max", "64KiB"),
        &[
            "needed 131072 bytes",
            "at most 65536 are allowed",
            "limit memory-bytes-max",
        ],
    );
    let chatty = configured(|memory| {
        let info = memory.info("calm", &[]);
        format!("(drop (call $now)) (drop (call $now)) i32.const {info}")
    });
    check(
        chatty,
        ("host-calls-max", "1"),
        &["made more than 1 host calls", "limit host-calls-max"],
    );
    let slow = configured(|_| "(loop (br 0)) i32.const 0".to_owned());
    check(slow, ("start-deadline", "20ms"), &["its deadline of 20ms"]);
    check(calm(), ("instances-max", "1"), &["instance count too high"]);
}

#[test]
fn limits_out_of_range_are_refused() {
    let mut source = source(quiet("calm", &[]));
    source.limits.memory_bytes_max = 0;
    let error = try_load(&source).unwrap_err().chain();
    assert!(error.contains("limit memory-bytes-max is 0"), "{error}");
}
