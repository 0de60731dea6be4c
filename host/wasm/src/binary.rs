//! What a file is, before anything parses it in earnest: clear words for the usual mix-ups.

use crate::error::LoadError;

const MAGIC: &[u8] = b"\0asm";
const HEADER_BYTES: usize = 8;

/// Version and layer, little endian: a core module is version 1 in layer 0.
const CORE_MODULE: u32 = 0x0000_0001;
const COMPONENT: u32 = 0x0001_000d;

/// Whether a file that begins so says that it is a component; what it is shows when it is loaded, which
/// refuses whatever else begins so for this beginning.
#[must_use]
pub fn begins_as_component(bytes: &[u8]) -> bool {
    check_header(bytes).is_ok()
}

/// Accepts what has a component's header and all the bytes its sections announce.
pub(crate) fn check_component(bytes: &[u8]) -> Result<(), LoadError> {
    check_header(bytes)?;
    let sections = bytes.get(HEADER_BYTES..).unwrap_or_default();
    if are_whole(sections) {
        Ok(())
    } else {
        Err(LoadError::Truncated { bytes: bytes.len() })
    }
}

fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    let begins = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(begins) {
        return Err(LoadError::NotWasm {
            found: looks_like(bytes),
        });
    }
    let Some(version) = bytes
        .get(MAGIC.len()..HEADER_BYTES)
        .and_then(|word| word.try_into().ok())
    else {
        return Err(LoadError::Truncated { bytes: bytes.len() });
    };
    match u32::from_le_bytes(version) {
        COMPONENT => Ok(()),
        CORE_MODULE => Err(LoadError::CoreModule),
        version => Err(LoadError::BinaryVersion { version }),
    }
}

/// Whether each section is as long as it says. A malformed length is left to the real parser.
fn are_whole(mut sections: &[u8]) -> bool {
    while let Some((_id, rest)) = sections.split_first() {
        let Some((length, rest)) = leb128(rest) else {
            let is_cut_off = rest.iter().all(|byte| byte & 0x80 != 0);
            return !is_cut_off;
        };
        match usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(length..))
        {
            Some(next) => sections = next,
            None => return false,
        }
    }
    true
}

/// An unsigned 32-bit LEB128 number and what follows; `None` if cut off or too long.
fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

fn looks_like(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii_start();
    if bytes.starts_with(b"\x7fELF") {
        "native code, which is never taken from outside: give the component it was made from"
    } else if text.starts_with(b"(") {
        "WebAssembly text: convert it with `wasm-tools parse`"
    } else if text.is_empty() {
        "an empty file"
    } else {
        "something else: check that the right file was given"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_component_is_noticed() {
        let whole = wat::parse_str("(component (core module (func nop)) (core module (memory 1)))")
            .unwrap();
        check_component(&whole).unwrap();
        let mut cuts = 0;
        for end in 1..whole.len() {
            // A cut between two sections leaves a shorter, valid component.
            if let Err(error) = check_component(&whole[..end]) {
                assert!(matches!(error, LoadError::Truncated { bytes } if bytes == end));
                cuts += 1;
            }
        }
        assert!(
            cuts >= whole.len() - 4,
            "{cuts} of {} cuts noticed",
            whole.len()
        );
    }

    #[test]
    fn other_files_are_told_by_what_they_are() {
        let found = |bytes: &[u8]| {
            let error = check_component(bytes).unwrap_err();
            let LoadError::NotWasm { found } = error else {
                panic!("{error:?}")
            };
            found
        };
        assert!(found(b"\x7fELF\x02\x01").contains("native code"));
        assert!(found(b"\n (component)").contains("text"));
        assert!(found(b"  \n").contains("empty"));
        assert!(found(b"PK\x03\x04").contains("something else"));
        assert!(matches!(
            check_component(b""),
            Err(LoadError::Truncated { bytes: 0 })
        ));
        assert!(matches!(
            check_component(b"\0asm\x02\0\x01\0"),
            Err(LoadError::BinaryVersion {
                version: 0x0001_0002
            })
        ));
    }
}
