//! What links, and what is refused by name.

use std::error::Error as _;

use device_api_wasm::{LoadError, wasi};

use crate::world::link;

const ALL: &str = include_str!("imports.wat");

#[test]
fn h1_every_function_of_wasi_0_2_links_in_every_patch_version() {
    let imports = ALL.matches("(import \"").count();
    assert_eq!(imports, wasi::INTERFACES.len());
    for patch in ["0", "1", "2", "3", "6", "9", "12", "99"] {
        let text = ALL.replace("@0.2.12", &format!("@0.2.{patch}"));
        link::<0>(&text)
            .unwrap_or_else(|error| panic!("0.2.{patch}: {error}, {:?}", error.source()));
    }
}

#[test]
fn h1_versions_beside_each_other_share_their_resources() {
    // As a composed component does: the stream of one version is written to by the other's functions.
    let text = r#"(component
      (import "wasi:io/poll@0.2.0" (instance $old (export "pollable" (type (sub resource)))))
      (import "wasi:io/poll@0.2.9" (instance $new (export "pollable" (type (sub resource))))))"#;
    link::<0>(text).unwrap();
}

#[test]
fn h1_what_is_not_of_it_is_refused_by_name() {
    let refused = |import: &str| {
        let text = format!(r#"(component (import "{import}" (instance (export "f" (func)))))"#);
        link::<0>(&text).unwrap_err()
    };
    for import in [
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:http/types@0.2.9",
        "wasi:keyvalue/store@0.2.0-draft",
        "wasi:nn/inference@0.2.0-rc-2024-10-28",
        "wasi:cli/run@0.2.0",
        "wasi:clocks/timezone@0.2.0",
    ] {
        let error = refused(import);
        let text = error.to_string();
        assert!(matches!(error, LoadError::Import { .. }), "{text}");
        assert!(text.contains(import), "{text}");
        assert!(
            text.contains("only cli, clocks, filesystem, io, random and sockets"),
            "{text}"
        );
    }
    for import in [
        "wasi:cli/environment@0.3.0",
        "wasi:io/poll@0.2.0-rc-2023-11-10",
    ] {
        let error = refused(import);
        assert!(matches!(error, LoadError::Version { .. }), "{error}");
        assert!(
            error.to_string().contains("this host offers 0.2.0"),
            "{error}"
        );
    }
    let unknown = refused("wasi:cli/environment@0.2.0");
    let source = unknown.source().expect("a source").to_string();
    assert!(
        source.contains("wasi:cli/environment@0.2.0 has no f in WASI 0.2.12"),
        "{source}"
    );
}
