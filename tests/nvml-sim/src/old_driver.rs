//! The library as an older driver would ship it: a copy in which the calls that came later are
//! undefined, so that `dlsym` does not find them. What a consumer does without them is not what it
//! does when they answer `NOT_SUPPORTED` or `FUNCTION_NOT_FOUND`.
//!
//! The copy differs in the dynamic symbol table alone: an entry without section and value is an
//! import, and a weak one, so that nothing has to provide it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::abi;

/// Which branch brought the calls that a consumer may have to do without. 510: the driver whose
/// header has the second memory struct. 535: where "throttle" became "event" in the header. 550:
/// the oldest NVML API reference in NVIDIA's archive whose structs the call has, so that the branch
/// before may have it too. 570: not in the reference of 550. 525: typical, not documented.
const SINCE: [(&str, u32); 9] = [
    ("nvmlDeviceGetMemoryInfo_v2", 510),
    ("nvmlDeviceGetGpuFabricInfo", 525),
    ("nvmlDeviceGetCurrentClocksEventReasons", 535),
    ("nvmlDeviceGetSupportedClocksEventReasons", 535),
    ("nvmlDeviceGetGpuFabricInfoV", 550),
    ("nvmlDeviceGetSramEccErrorStatus", 550),
    ("nvmlDeviceGetPciInfoExt", 550),
    ("nvmlDeviceGetMarginTemperature", 570),
    ("nvmlDeviceGetTemperatureV", 570),
];

/// Section types and layouts of 64-bit ELF, little endian (System V ABI, "ELF-64 Object File
/// Format").
const SHT_DYNSYM: u32 = 11;
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const STB_WEAK: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum OldDriverError {
    #[error("can't read {} ({source}): give the built libnvml_sim.so", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("can't write {} ({source}): give a file in a folder you may write to", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is no 64-bit little-endian shared library", .0.display())]
    Elf(PathBuf),
    #[error("no call {0}: name a symbol that the library has, such as nvmlDeviceGetMemoryInfo_v2")]
    NoSuchCall(String),
}

/// The calls that a driver of that branch (as in 535) does not have yet.
pub fn missing_before(branch: u32) -> Vec<&'static str> {
    let later = SINCE.iter().filter(|(_, since)| *since > branch);
    later.map(|(call, _)| *call).collect()
}

/// Copies the library without these calls.
///
/// # Errors
/// A file can't be read or written, is no library, or lacks a call that is to be taken out.
pub fn copy_without(
    library: &Path,
    calls: &[impl AsRef<str>],
    copy: &Path,
) -> Result<(), OldDriverError> {
    let mut bytes = fs::read(library).map_err(|source| OldDriverError::Read {
        path: library.to_owned(),
        source,
    })?;
    let symbols = symbols(&bytes).ok_or_else(|| OldDriverError::Elf(library.to_owned()))?;
    for call in calls.iter().map(AsRef::as_ref) {
        let no_such = || OldDriverError::NoSuchCall(call.to_owned());
        let (_, at) = symbols
            .iter()
            .find(|(name, _)| name == call)
            .ok_or_else(no_such)?;
        if !abi::exports(call) {
            return Err(no_such());
        }
        let entry = bytes.get_mut(*at..*at + SYMBOL_BYTES);
        undefine(entry.ok_or_else(|| OldDriverError::Elf(library.to_owned()))?);
    }
    fs::write(copy, bytes).map_err(|source| OldDriverError::Write {
        path: copy.to_owned(),
        source,
    })
}

/// Makes an entry of the symbol table an import that nobody needs: name (4 bytes), info, other,
/// section (2), value (8), size (8).
fn undefine(entry: &mut [u8]) {
    if let [_, _, _, _, info, _, rest @ ..] = entry {
        *info = (STB_WEAK << 4) | (*info & 0xf);
        rest.fill(0);
    }
}

/// Names in the dynamic symbol table, and where their entries are.
fn symbols(elf: &[u8]) -> Option<Vec<(String, usize)>> {
    let is_elf64 = elf.get(..6)? == [0x7f, b'E', b'L', b'F', 2, 1];
    if !is_elf64 {
        return None;
    }
    let (sections, count) = (number(elf, 0x28, 8)?, number(elf, 0x3c, 2)?);
    let header = |index: usize| elf.get(sections.checked_add(index * SECTION_BYTES)?..);
    let table = (0..count)
        .filter_map(header)
        .find(|header| number(header, 4, 4) == usize::try_from(SHT_DYNSYM).ok())?;
    let (start, size) = (number(table, 0x18, 8)?, number(table, 0x20, 8)?);
    let names = number(header(number(table, 0x28, 4)?)?, 0x18, 8)?;
    let mut found = Vec::new();
    for at in (start..start.checked_add(size)?).step_by(SYMBOL_BYTES) {
        let name = elf.get(names.checked_add(number(elf, at, 4)?)?..)?;
        let length = name.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(name.get(..length)?).into_owned();
        found.push((name, at));
    }
    Some(found)
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let digits = bytes.get(at..at.checked_add(length)?)?;
    let number = digits
        .iter()
        .rev()
        .fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (text, copy) = (folder.path().join("text"), folder.path().join("copy"));
        for content in [&b"words"[..], b"\x7fELF\x02\x01", b""] {
            fs::write(&text, content).unwrap();
            let error = copy_without(&text, &["nvmlInit_v2"], &copy).unwrap_err();
            assert!(matches!(error, OldDriverError::Elf(_)), "{error}");
        }
        let error = copy_without(&copy, &["nvmlInit_v2"], &text).unwrap_err();
        assert!(matches!(error, OldDriverError::Read { .. }), "{error}");
    }

    #[test]
    fn every_call_of_the_table_is_one_of_ours() {
        for (call, _) in SINCE {
            assert!(abi::exports(call), "{call}");
        }
        assert!(missing_before(535).contains(&"nvmlDeviceGetSramEccErrorStatus"));
        assert!(missing_before(580).is_empty());
    }
}
