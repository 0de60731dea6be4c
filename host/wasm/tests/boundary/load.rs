//! What is refused before anything runs, and in which words.

use std::error::Error;

use device_api_wasm::{Engine, Limits, LoadError};

use crate::world::{program, program_on, refused, roomy, run, text};

/// A component with these imports and a good export.
fn importing(imports: &str) -> Vec<u8> {
    text(&format!(
        r#"(component {imports}
          (core module $m (func (export "run") (result i32) i32.const 0)) (core instance $m (instantiate $m))
          (func (export "run") (result u32) (canon lift (core func $m "run"))))"#
    ))
}

/// An error as a log line shows it.
fn chain(error: &dyn Error) -> String {
    let below = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", below.unwrap_or_default())
}

#[test]
fn a_good_component_has_the_digest_of_its_bytes() {
    let bytes = run("i32.const 0");
    let program = program(&bytes, roomy());
    assert_eq!(program.digest().len(), 64);
    assert_eq!(
        program.digest(),
        Engine::new()
            .unwrap()
            .load(&bytes, roomy())
            .unwrap()
            .digest()
    );
}

#[test]
fn a_foreign_import_is_refused_by_name() {
    let error = refused(&importing(
        r#"(import "wasi:filesystem/types@0.2.0" (instance (export "open" (func))))
           (import "test:world/host@0.1.0" (instance (export "tick" (func))))"#,
    ));
    assert_eq!(
        error.to_string(),
        "imports wasi:filesystem/types@0.2.0, which this host does not offer: \
         build it without WASI (Rust: for wasm32-unknown-unknown)"
    );
    let error = refused(&importing(r#"(import "phone-home" (func))"#));
    assert!(
        error.to_string().contains("imports phone-home, which"),
        "{error}"
    );
    assert!(
        error.to_string().ends_with("offers test:world/host@0.1.0"),
        "{error}"
    );
}

#[test]
fn another_version_is_refused_naming_both_before_anything_else_is() {
    let error = refused(&importing(
        r#"(import "x:y/z@1.0.0" (instance (export "f" (func))))
           (import "test:world/host@0.2.0" (instance (export "tick" (func))))"#,
    ));
    assert!(matches!(error, LoadError::Version { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("built for test:world/host@0.2.0, this host offers 0.1.0"),
        "{error}"
    );
}

#[test]
fn a_later_patch_version_is_let_in_unless_it_needs_what_is_new() {
    let engine = Engine::new().unwrap();
    let with = |function| {
        importing(&format!(
            r#"(import "test:world/host@0.1.9" (instance (export "{function}" (func))))"#
        ))
    };
    program_on(&engine, &with("tick"), roomy()).unwrap();
    let error = program_on(&engine, &with("tock"), roomy()).unwrap_err();
    assert!(matches!(error, LoadError::Link { .. }), "{error:?}");
    assert!(chain(&error).contains("tock"), "{}", chain(&error));
}

#[test]
fn an_interface_of_types_alone_is_nobodys_business() {
    let types = r#"(import "test:world/types@0.1.0" (instance (type $t (record (field "n" u32)))
        (export "point" (type (eq $t)))))"#;
    program(&importing(types), roomy());
}

#[test]
fn a_missing_export_is_refused_by_name() {
    let error = refused(&text("(component)"));
    assert_eq!(
        error.to_string(),
        "does not export run, which the world test:world/tests@0.1.0 requires: it exports nothing"
    );
}

#[test]
fn a_core_module_is_told_what_it_is() {
    let error = refused(&text(r#"(module (func (export "run")))"#));
    assert!(matches!(error, LoadError::CoreModule), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("is a core WebAssembly module, not a component"),
        "{error}"
    );
}

#[test]
fn truncated_and_garbage_bytes_are_refused() {
    let whole = run("i32.const 0");
    let half = &whole[..whole.len() / 2];
    assert!(matches!(refused(half), LoadError::Truncated { bytes } if bytes == half.len()));
    assert!(matches!(refused(b"hello"), LoadError::NotWasm { .. }));

    // The right header and whole sections, but no sense in them.
    let mut nonsense = whole[..8].to_vec();
    nonsense.extend([7, 3, 0xff, 0xff, 0xff]);
    let error = refused(&nonsense);
    assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
    let source = error.source().unwrap().to_string();
    assert!(!error.to_string().contains(&source), "{error} / {source}");
}

#[test]
fn no_flipped_byte_gets_past_as_a_panic() {
    let engine = Engine::new().unwrap();
    let whole = run("(call $tick) i32.const 0");
    let mut refusals = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        if let Err(error) = program_on(&engine, &bytes, roomy()) {
            assert!(
                !matches!(error, LoadError::CompilerPanic { .. }),
                "{at}: {error}"
            );
            refusals += 1;
        }
    }
    assert!(refusals > 20, "{refusals}");
}

#[test]
fn an_oversize_file_is_refused_before_it_is_read() {
    let bytes = run("i32.const 0");
    let limits = Limits {
        component_bytes_max: bytes.len() - 1,
        ..roomy()
    };
    let error = Engine::new().unwrap().load(&bytes, limits).unwrap_err();
    assert!(
        matches!(error, LoadError::TooLarge { bytes: size, max } if size == bytes.len() && max == size - 1)
    );
}

#[test]
fn limits_that_limit_nothing_are_refused() {
    let limits = Limits {
        host_calls_max: 0,
        ..roomy()
    };
    let error = Engine::new()
        .unwrap()
        .load(&run("i32.const 0"), limits)
        .unwrap_err();
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("host-calls-max is 0"),
        "{error:?}"
    );
}

#[test]
fn features_that_the_host_keeps_off_are_refused() {
    let error = refused(&text("(component (core module (memory 1 1 shared)))"));
    assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
}
