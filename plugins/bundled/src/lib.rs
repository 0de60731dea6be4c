//! The two policies that the daemon carries and loads by default, as components built from
//! `plugins/` by this crate's build script (design H14). A file of the same name in the policy
//! directory replaces one.

include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// A policy that is part of the binary.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The name that its `configure` answers with, and by which a file replaces it.
    pub name: &'static str,
    /// The component, validated when it was built.
    pub bytes: &'static [u8],
}

/// All of them, in the order of loading.
pub const ALL: [Bundled; 2] = [XID_POLICY, NVML_HEALTH];

/// The bundled policy of that name.
pub fn find(name: &str) -> Option<Bundled> {
    ALL.into_iter().find(|policy| policy.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They travel in the daemon's binary and are compiled at its first start.
    const BYTES_MAX: usize = 300 * 1024;

    #[test]
    fn the_bundled_policies_are_components_of_a_modest_size() {
        for policy in ALL {
            assert_eq!(
                policy.bytes.get(..8),
                Some(&b"\0asm\x0d\0\x01\0"[..]),
                "{}",
                policy.name
            );
            assert!(
                policy.bytes.len() < BYTES_MAX,
                "{}: {} bytes",
                policy.name,
                policy.bytes.len()
            );
            assert_eq!(find(policy.name).map(|found| found.name), Some(policy.name));
        }
        assert!(find("nothing").is_none());
    }

    #[test]
    fn no_path_of_the_build_machine_is_in_their_bytes() {
        let root = env!("CARGO_MANIFEST_DIR")
            .trim_end_matches("plugins/bundled")
            .as_bytes();
        let home = std::env::var("HOME").unwrap_or_default();
        for policy in ALL {
            let has = |part: &[u8]| {
                policy
                    .bytes
                    .windows(part.len().max(1))
                    .any(|window| window == part)
            };
            assert!(
                !has(root),
                "{}: {}",
                policy.name,
                String::from_utf8_lossy(root)
            );
            assert!(
                home.len() < 2 || !has(format!("{home}/.cargo/").as_bytes()),
                "{}",
                policy.name
            );
        }
    }
}
