//! What ties compiled code to what it was made from and for: goes before it in an answer and a file.

use std::fmt;
use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};

/// What code is made in: a change in [`Seal`], or in how code is made that the engine does not know
/// of, makes it another.
pub(super) const FORMAT: u32 = 1;

pub(super) type Hash = [u8; 32];

pub(super) fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What code is of and for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Engine, its exact version, its settings, and the processor's features.
    pub(super) engine: Hash,
    /// Of the component.
    pub(super) component: Hash,
}

/// The engine's compatibility hash, as a digest that is equal in every process.
pub(super) fn compatibility(engine: &wasmtime::Engine) -> Hash {
    struct Digesting(Sha256);
    impl Hasher for Digesting {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Digesting(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

/// Key, length and digest of the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) key: Key,
    pub(super) bytes: u64,
    pub(super) sha256: Hash,
}

impl Seal {
    pub(super) const LENGTH: usize = 3 * size_of::<Hash>() + size_of::<u64>();

    pub(super) fn of(key: Key, payload: &[u8]) -> Self {
        Self {
            key,
            bytes: u64::try_from(payload.len()).unwrap_or(u64::MAX),
            sha256: sha256(payload),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.key.engine);
        out.extend(self.key.component);
        out.extend(self.sha256);
        out.extend(self.bytes.to_le_bytes());
    }

    pub(super) fn take(from: &mut Fields<'_>) -> Option<Self> {
        let (engine, component) = (from.array()?, from.array()?);
        let sha256 = from.array()?;
        Some(Self {
            key: Key { engine, component },
            sha256,
            bytes: from.u64()?,
        })
    }

    /// Whether `payload` is what was sealed, and for `key`.
    pub(super) fn check(&self, key: &Key, payload: &[u8]) -> Result<(), Broken> {
        if self.key.engine != key.engine {
            Err(Broken::Engine)
        } else if self.key.component != key.component {
            Err(Broken::Component)
        } else if u64::try_from(payload.len()) != Ok(self.bytes) {
            Err(Broken::Length)
        } else if sha256(payload) != self.sha256 {
            Err(Broken::Digest)
        } else {
            Ok(())
        }
    }

    /// The code that follows the first `at` bytes of `whole`, if it is what was sealed, and for `key`.
    pub(super) fn open(&self, key: &Key, whole: Vec<u8>, at: usize) -> Result<Code, Broken> {
        self.check(key, whole.get(at..).ok_or(Broken::Length)?)?;
        Ok(Code { whole, at })
    }
}

/// Why bytes are not taken as code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Header,
    Engine,
    Component,
    Length,
    Digest,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "its header is not of this version",
            Self::Engine => "it is for another engine",
            Self::Component => "it is of another component",
            Self::Length => "its length is not what its header says",
            Self::Digest => "its digest is not what its header says",
        })
    }
}

/// Compiled code that held against its seal. There is no other way to one than [`Seal::open`].
pub(super) struct Code {
    whole: Vec<u8>,
    at: usize,
}

impl Code {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.whole.get(self.at..).unwrap_or_default()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("bytes", &self.as_bytes().len())
            .finish_non_exhaustive()
    }
}

/// Reads fixed fields off the front of bytes.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_seal_is_held_against_what_is_expected() {
        let key = Key {
            engine: [1; 32],
            component: [2; 32],
        };
        let seal = Seal::of(key, b"code");
        let mut header = Vec::new();
        seal.put(&mut header);
        assert_eq!(header.len(), Seal::LENGTH);
        assert_eq!(Seal::take(&mut Fields(&header)), Some(seal));
        assert_eq!(Seal::take(&mut Fields(&header[1..])), None);

        let opened = |key: &Key, bytes: &[u8]| seal.open(key, bytes.to_vec(), 2).map(|_| ());
        assert_eq!(opened(&key, b"..code"), Ok(()));
        assert_eq!(opened(&key, b"..cod"), Err(Broken::Length));
        assert_eq!(opened(&key, b"..codes"), Err(Broken::Length));
        assert_eq!(opened(&key, b"."), Err(Broken::Length));
        assert_eq!(opened(&key, b"..kode"), Err(Broken::Digest));
        let other = |engine, component| Key { engine, component };
        assert_eq!(
            opened(&other([0; 32], [2; 32]), b"..code"),
            Err(Broken::Engine)
        );
        assert_eq!(
            opened(&other([1; 32], [0; 32]), b"..code"),
            Err(Broken::Component)
        );
    }

    #[test]
    fn an_engine_with_other_settings_is_another() {
        let with = |fuel| {
            let mut config = wasmtime::Config::new();
            config.consume_fuel(fuel);
            compatibility(&wasmtime::Engine::new(&config).unwrap())
        };
        assert_eq!(with(false), with(false));
        assert_ne!(with(false), with(true));
    }
}
