//! What a component asks for, held against what a world offers. Versions are compared first: a
//! component of another version usually lacks and wants other things too, but that is not its trouble.

use wasmtime::component::types::{Component, ComponentItem};

use crate::error::LoadError;
use crate::limits::NAMES_LISTED_MAX;
use crate::program::World;

/// Checks the versions of imports and exports, then imports, then exports.
pub(crate) fn check<W: World>(
    engine: &wasmtime::Engine,
    component: &Component,
) -> Result<(), LoadError> {
    let imports: Vec<(&str, bool)> = component
        .imports(engine)
        .map(|(name, item)| (name, is_types_only(engine, &item.ty)))
        .collect();
    let exports: Vec<&str> = component.exports(engine).map(|(name, _)| name).collect();

    for (name, _) in &imports {
        check_version(name, W::imports())?;
    }
    for name in &exports {
        check_version(name, W::exports())?;
    }
    check_imports(&imports, W::NAME, W::imports())?;
    for required in W::exports() {
        if !exports
            .iter()
            .any(|export| Name::parse(export).fits(&Name::parse(required)))
        {
            let found = listed(&exports).unwrap_or_else(|| "nothing".to_owned());
            return Err(LoadError::Export {
                name: required,
                world: W::NAME,
                found,
            });
        }
    }
    Ok(())
}

/// An interface of nothing but types asks for nothing, so it needs no one to offer it.
fn is_types_only(engine: &wasmtime::Engine, item: &ComponentItem) -> bool {
    match item {
        ComponentItem::Type(_) => true,
        ComponentItem::ComponentInstance(instance) => instance
            .exports(engine)
            .all(|(_, export)| matches!(export.ty, ComponentItem::Type(_))),
        ComponentItem::ComponentFunc(_)
        | ComponentItem::CoreFunc(_)
        | ComponentItem::Module(_)
        | ComponentItem::Component(_)
        | ComponentItem::Resource(_) => false,
    }
}

/// Refuses a name from a package that the world knows in other versions only.
fn check_version(name: &str, known: &[&str]) -> Result<(), LoadError> {
    let wanted = Name::parse(name);
    let mut offered: Vec<&str> = known
        .iter()
        .map(|known| Name::parse(known))
        .filter(|known| known.package == wanted.package && !known.package.is_empty())
        .map(|known| known.version)
        .collect();
    if offered.is_empty()
        || offered
            .iter()
            .any(|version| track(version) == track(wanted.version))
    {
        return Ok(());
    }
    offered.dedup();
    Err(LoadError::Version {
        name: name.to_owned(),
        offered: offered.join(" and "),
    })
}

fn check_imports(imports: &[(&str, bool)], world: &str, allowed: &[&str]) -> Result<(), LoadError> {
    let foreign: Vec<&str> = imports
        .iter()
        .filter(|(name, types_only)| {
            !types_only
                && !allowed
                    .iter()
                    .any(|known| Name::parse(name).fits(&Name::parse(known)))
        })
        .map(|(name, _)| *name)
        .collect();
    let Some(names) = listed(&foreign) else {
        return Ok(());
    };
    let is_wasi = |name: &&str| name.starts_with("wasi:");
    let hint = if !foreign.iter().any(is_wasi) {
        let own: Vec<&str> = allowed
            .iter()
            .filter(|name| !is_wasi(name))
            .copied()
            .collect();
        let offers = listed(&own).unwrap_or_else(|| "nothing".to_owned());
        format!("the world {world} offers {offers}")
    } else if allowed.iter().any(is_wasi) {
        format!(
            "the world {world} has of WASI 0.2 only cli, clocks, filesystem, io, random and sockets, \
             and none of them reaches anything: leave out what uses more"
        )
    } else {
        "build it without WASI (Rust: for wasm32-unknown-unknown)".to_owned()
    };
    Err(LoadError::Import { names, hint })
}

/// The first few names; `None` for none.
fn listed(names: &[&str]) -> Option<String> {
    let shown = names.get(..NAMES_LISTED_MAX.min(names.len()))?.join(", ");
    let more = names.len().saturating_sub(NAMES_LISTED_MAX);
    if names.is_empty() {
        None
    } else if more == 0 {
        Some(shown)
    } else {
        Some(format!("{shown} and {more} more"))
    }
}

/// `package/interface@version`; a plain function has an empty package, and the version may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    package: &'a str,
    interface: &'a str,
    version: &'a str,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Self {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let (package, interface) = path.split_once('/').unwrap_or(("", path));
        Self {
            package,
            interface,
            version,
        }
    }

    /// The same interface in a compatible version.
    fn fits(&self, other: &Self) -> bool {
        self.package == other.package
            && self.interface == other.interface
            && track(self.version) == track(other.version)
    }
}

/// The part of a version that compatible ones share, as the linker sees it: `1`, `0.1`, else all.
fn track(version: &str) -> &str {
    if version.contains('-') {
        return version;
    }
    let mut dots = version.match_indices('.').map(|(at, _)| at);
    let (Some(first), Some(second)) = (dots.next(), dots.next()) else {
        return version;
    };
    let (major, minor) = (version.get(..first), version.get(first + 1..second));
    match (major, minor) {
        (Some("0"), Some("0")) => version,
        (Some("0"), _) => version.get(..second).unwrap_or(version),
        _ => major.unwrap_or(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_share_a_track_as_semver_says() {
        for (a, b, compatible) in [
            ("0.1.0", "0.1.7", true),
            ("0.1.0", "0.2.0", false),
            ("1.2.0", "1.9.3", true),
            ("1.0.0", "2.0.0", false),
            ("0.0.1", "0.0.2", false),
            ("0.1.0", "0.1.0-rc.1", false),
            ("0.1.0-rc.1", "0.1.0-rc.1", true),
            ("", "0.1.0", false),
            ("", "", true),
        ] {
            assert_eq!(track(a) == track(b), compatible, "{a} and {b}");
        }
    }

    #[test]
    fn a_known_package_in_another_version_is_a_matter_of_version() {
        let known = ["a:b/c@0.1.0", "a:b/d@0.1.0"];
        let refused = |name| check_version(name, &known).unwrap_err().to_string();
        assert!(refused("a:b/c@0.2.0").contains("a:b/c@0.2.0, this host offers 0.1.0:"));
        // Even an interface that only the other version has.
        assert!(refused("a:b/new@0.2.0").contains("offers 0.1.0"));
        check_version("a:b/new@0.1.9", &known).unwrap();
        check_version("x:y/z@7.0.0", &known).unwrap();
        check_version("plain", &known).unwrap();
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..NAMES_LISTED_MAX + 3).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(listed(&names).unwrap().ends_with("n7 and 3 more"));
        assert_eq!(listed(&names[..1]), Some("n0".to_owned()));
        assert_eq!(listed(&[]), None);
    }
}
