//! The kernel's side of a fault: the lines the driver would have logged.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::events::MigIds;
use crate::profile::PciSlot;

/// The driver's words where no process is to blame.
const NO_PROCESS: &str = "pid='<unknown>', name=<unknown>";
const PROCESS: &str = "pid=2512125, name=python3";

/// Facility kernel, level warning: what the driver logs faults with.
const PRIORITY: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The driver's words alone.
    Plain,
    /// Records of `/dev/kmsg`: `priority,sequence,microseconds,-;words`.
    Records,
}

/// Where the lines go. Kept open, so that a reader of a FIFO sees one long log.
#[derive(Debug)]
pub(crate) struct Kmsg {
    path: PathBuf,
    open: Option<File>,
    format: Format,
    sequence: u64,
}

impl Kmsg {
    pub(crate) fn new(path: PathBuf, format: Format) -> Self {
        Self {
            path,
            open: None,
            format,
            sequence: 0,
        }
    }

    /// Writes one line, or fails: with a full FIFO or none who reads it, the line is gone, as in a
    /// ring buffer. Never blocks. `now` is on the simulator's clock.
    pub(crate) fn write(&mut self, line: &str, now: Duration) -> io::Result<()> {
        let line = match self.format {
            Format::Plain => format!("{line}\n"),
            Format::Records => {
                let (sequence, us) = (self.sequence, now.as_micros());
                format!("{PRIORITY},{sequence},{us},-;{line}\n")
            }
        };
        // A lost record leaves a gap, as in the ring buffer.
        self.sequence += 1;
        if let Some(file) = &mut self.open
            && let Ok(()) = file.write_all(line.as_bytes())
        {
            return Ok(());
        }
        // Not opened yet, or its reader went and another may have come.
        self.open = None;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        file.write_all(line.as_bytes())?;
        self.open = Some(file);
        Ok(())
    }

    /// The error, with what it was about.
    pub(crate) fn explain(&self, error: &io::Error) -> String {
        let path = self.path.display();
        match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
                format!("nobody reads the FIFO {path}: start its reader first")
            }
            Some(_) | None => format!("can't write to {path}: {error}"),
        }
    }
}

/// The line of an XID, without the time stamp that the kernel's log puts before it.
pub(crate) fn xid_line(
    pci: PciSlot,
    instance: Option<MigIds>,
    code: u64,
    recovery_action: u32,
) -> String {
    let details = match xid_details(code) {
        Some(details) => details,
        None if code == 154 => return recovery_line(pci, 0, recovery_action),
        None => format!("{PROCESS}, Ch 00000008"),
    };
    let place = instance.map_or_else(String::new, |ids| {
        let compute = ids
            .compute_instance
            .map_or_else(String::new, |ci| format!(" GPU-CI:{ci:02}"));
        format!(" GPU-I:{:02}{compute}", ids.gpu_instance)
    });
    format!("NVRM: Xid (PCI:{}{place}): {code}, {details}", pci.kernel())
}

/// XID 154: the driver wants something else than before.
pub(crate) fn recovery_line(pci: PciSlot, from: u32, to: u32) -> String {
    format!(
        "NVRM: Xid (PCI:{}): 154, GPU recovery action changed from {from:#x} ({}) to {to:#x} ({})",
        pci.kernel(),
        recovery_action_name(from),
        recovery_action_name(to)
    )
}

fn recovery_action_name(action: u32) -> &'static str {
    match action {
        0 => "None",
        1 => "GPU Reset Required",
        2 => "Node Reboot Required",
        3 => "Drain P2P",
        4 => "Drain and Reset",
        5.. => "Unknown",
    }
}

/// What the driver says of the common codes, as captured on real nodes.
fn xid_details(code: u64) -> Option<String> {
    let (process, text) = match code {
        13 => (
            PROCESS,
            "Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
        ),
        31 => (
            PROCESS,
            "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_8 faulted @ \
             0x73ac_1c000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_WRITE",
        ),
        48 => (
            NO_PROCESS,
            "An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer \
             at physAddr 0x18f31d80 partition 16, subpartition 3.",
        ),
        63 => (
            NO_PROCESS,
            "Row Remapper: New row (0x0000000018f31d80) marked for remapping, reset gpu to \
             activate.",
        ),
        64 => (
            NO_PROCESS,
            "Row Remapper: Failed to remap row (0x0000000018f31d80).",
        ),
        74 => (
            NO_PROCESS,
            "NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
        ),
        79 => (NO_PROCESS, "GPU has fallen off the bus."),
        94 => (NO_PROCESS, "Contained: SM (0x1). RST: No, D-RST: No"),
        95 => (
            NO_PROCESS,
            "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
        ),
        109 => (
            PROCESS,
            "Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x58005",
        ),
        119 => (
            PROCESS,
            "Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76 \
             (GSP_RM_CONTROL) (0x20803032 0x58c).",
        ),
        _ => return xid_without_process(code).map(str::to_owned),
    };
    Some(format!("{process}, {text}"))
}

fn xid_without_process(code: u64) -> Option<&'static str> {
    match code {
        62 => Some("223b6a66 00002100 00000000 20662342 20662ba6 20664272 2065f7ca 2063f48c"),
        120 => Some(
            "GSP task exception: load access page fault (cause:0xd) @ pc:0x140ca4a, \
             partition:4#0, task:3",
        ),
        145 => Some(
            "RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 0x00000000 0x00000000 \
             0x00000000 0x00000000)",
        ),
        149 => Some(
            "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 0x00000000 0x00000000 \
             0x00000000 0x00000000)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const NOW: Duration = Duration::ZERO;
    const SLOT: PciSlot = PciSlot {
        domain: 0,
        bus: 0x1b,
    };

    #[test]
    fn lines_have_the_drivers_form() {
        for (code, line) in [
            (
                79,
                "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            ),
            (43, "43, pid=2512125, name=python3, Ch 00000008"),
            (
                154,
                "154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            ),
        ] {
            assert_eq!(
                xid_line(SLOT, None, code, 1),
                format!("NVRM: Xid (PCI:0000:1b:00): {line}")
            );
        }
    }

    #[test]
    fn a_mig_instance_is_named_as_the_driver_does() {
        let ids = |compute_instance| {
            Some(MigIds {
                gpu_instance: 5,
                compute_instance,
            })
        };
        let line = |compute| xid_line(SLOT, ids(compute), 43, 0);
        assert!(line(None).starts_with("NVRM: Xid (PCI:0000:1b:00 GPU-I:05): 43, pid="));
        assert!(line(Some(0)).starts_with("NVRM: Xid (PCI:0000:1b:00 GPU-I:05 GPU-CI:00): 43,"));
    }

    #[test]
    fn a_record_has_its_sequence_and_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut kmsg = Kmsg::new(file.path().to_owned(), Format::Records);
        for seconds in [1, 2] {
            kmsg.write("words", Duration::from_secs(seconds)).unwrap();
        }
        let log = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(log, "4,0,1000000,-;words\n4,1,2000000,-;words\n");
    }

    #[test]
    fn a_fifo_without_reader_does_not_block_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let mut kmsg = Kmsg::new(path.clone(), Format::Plain);
        let error = kmsg.write("lost", NOW).unwrap_err();
        assert!(
            kmsg.explain(&error).starts_with("nobody reads the FIFO"),
            "{error}"
        );

        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let mut reader = File::from(rustix::fs::open(&path, flags, Mode::empty()).unwrap());
        kmsg.write("first", NOW).unwrap();
        kmsg.write("second", NOW).unwrap();
        let mut bytes = [0; 64];
        let read = reader.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"first\nsecond\n");

        // A full pipe fails instead of blocking.
        let line = "x".repeat(4000);
        assert!((0..1000).any(|_| kmsg.write(&line, NOW).is_err()));
    }
}
