//! Faults on command, seen through NVML.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::process::{client, device, folder, initialised, isolated, listening, nvml, wait};
use nvml_sim::control::{ClientError, EccKind, EccLocation, Only, Reasons, Request};
use nvml_sim::profile::Profile;

const NOT_SUPPORTED: u32 = 3;
const TIMEOUT: u32 = 10;
const GPU_IS_LOST: u32 = 15;
const SINGLE_BIT: u64 = 1;
const DOUBLE_BIT: u64 = 2;
const XID: u64 = 8;
const RECOVERY_ACTION: u64 = 0x8000;
/// More than a loaded machine needs; a test that waits this long has failed.
const LONG_MS: u32 = 20_000;

#[test]
fn an_xid_reaches_the_waiter_and_its_sender_learns_when() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, XID);
        let injected = thread::spawn(|| client().xid(5, &[79]).unwrap());
        let event = wait(&lib, set, LONG_MS).unwrap();
        let after_ns = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        assert_eq!(event.device, device(&lib, 5));
        assert_eq!((event.eventType, event.eventData), (XID, 79));
        assert_eq!(
            (event.gpuInstanceId, event.computeInstanceId),
            (u32::MAX, u32::MAX)
        );
        let answer = injected.join().unwrap();
        assert_eq!(
            (answer.delivered, answer.events_delivered),
            (Some(true), Some(1))
        );
        let delivered_ns = answer.delivered_unix_ns.unwrap();
        assert!(delivered_ns <= after_ns && after_ns - delivered_ns < 5_000_000_000);
        assert_eq!(wait(&lib, set, 0).unwrap_err(), TIMEOUT);
    });
}

#[test]
fn what_nobody_takes_stays_queued_and_is_said() {
    isolated(&[], || {
        let lib = initialised();
        let answer = client().xid(0, &[31]).unwrap();
        assert_eq!(
            (answer.delivered, answer.delivered_unix_ns),
            (Some(false), None)
        );
        let set = listening(&lib, XID);
        // Nobody listened yet: gone. Nobody waits now: kept.
        assert_eq!(wait(&lib, set, 0).unwrap_err(), TIMEOUT);
        assert_eq!(client().xid(0, &[43]).unwrap().delivered, Some(false));
        assert_eq!(client().status().unwrap().event_sets[0].queued, 1);
        assert_eq!(wait(&lib, set, 0).unwrap().eventData, 43);
    });
}

#[test]
fn several_xids_in_a_millisecond_arrive_in_order() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, XID);
        let injected = thread::spawn(|| client().xid(1, &[48, 63, 94]).unwrap());
        let codes = [(); 3].map(|()| wait(&lib, set, LONG_MS).unwrap().eventData);
        assert_eq!(codes, [48, 63, 94]);
        assert_eq!(injected.join().unwrap().events_delivered, Some(3));
    });
}

#[test]
fn a_lost_gpu_answers_nothing_until_it_is_found() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, XID);
        let (lost, other) = (device(&lib, 3), device(&lib, 4));
        let injected = thread::spawn(|| client().lost(3).unwrap());
        assert_eq!(wait(&lib, set, LONG_MS).unwrap_err(), GPU_IS_LOST);
        assert_eq!(injected.join().unwrap().delivered, Some(true));
        // Once, not for ever.
        assert_eq!(wait(&lib, set, 0).unwrap_err(), TIMEOUT);
        let (mut celsius, mut handle) = (0, std::ptr::null_mut());
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(lost, 0, &mut celsius)),
            GPU_IS_LOST
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceGetHandleByIndex_v2(3, &mut handle)),
            GPU_IS_LOST
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceRegisterEvents(lost, XID, set)),
            GPU_IS_LOST
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(other, 0, &mut celsius)),
            0
        );
        client().found(3).unwrap();
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(lost, 0, &mut celsius)),
            0
        );
    });
}

#[test]
fn ecc_errors_are_counted_and_told() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, SINGLE_BIT | DOUBLE_BIT);
        let injected = thread::spawn(|| client().ecc(1, EccKind::Uncorrected, 2).unwrap());
        let event = wait(&lib, set, LONG_MS).unwrap();
        assert_eq!(
            (event.device, event.eventType, event.eventData),
            (device(&lib, 1), DOUBLE_BIT, 0)
        );
        injected.join().unwrap();
        let sram = Request::Ecc {
            gpu: 1,
            kind: EccKind::Corrected,
            location: EccLocation::Sram,
            count: 7,
        };
        let injected = thread::spawn(move || client().request(&sram).unwrap());
        assert_eq!(wait(&lib, set, LONG_MS).unwrap().eventType, SINGLE_BIT);
        injected.join().unwrap();
        let gpu = device(&lib, 1);
        // Kind (corrected, uncorrected), span (volatile, aggregate), memory (DRAM, SRAM).
        let mut count = 0;
        for (kind, memory, expected) in [(0, 2, 0), (0, 7, 7), (1, 2, 2), (1, 7, 0)] {
            for span in [0, 1] {
                assert_eq!(
                    nvml!(lib.nvmlDeviceGetMemoryErrorCounter(gpu, kind, span, memory, &mut count)),
                    0
                );
                assert_eq!(count, expected, "kind {kind} span {span} memory {memory}");
            }
        }
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTotalEccErrors(gpu, 1, 0, &mut count)),
            0
        );
        assert_eq!(count, 2);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetMemoryErrorCounter(gpu, 0, 0, 3, &mut count)),
            NOT_SUPPORTED
        );
    });
}

#[test]
fn only_supported_events_can_be_registered_for_and_only_registered_ones_arrive() {
    isolated(&[], || {
        let lib = initialised();
        let set = listening(&lib, RECOVERY_ACTION);
        let gpu = device(&lib, 0);
        let mut supported = 0;
        assert_eq!(
            nvml!(lib.nvmlDeviceGetSupportedEventTypes(gpu, &mut supported)),
            0
        );
        assert_eq!(
            supported & (XID | SINGLE_BIT | DOUBLE_BIT),
            XID | SINGLE_BIT | DOUBLE_BIT
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceRegisterEvents(gpu, supported | 1 << 40, set)),
            NOT_SUPPORTED
        );
        client().xid(0, &[79]).unwrap();
        let injected = thread::spawn(|| client().recovery_action(0, 1).unwrap());
        assert_eq!(wait(&lib, set, LONG_MS).unwrap().eventType, RECOVERY_ACTION);
        injected.join().unwrap();
    });
}

#[test]
fn figures_are_what_they_were_set_to_until_a_reset() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 6);
        let read = || {
            let (mut celsius, mut reasons, mut rows) = (0, 0, [0; 4]);
            assert_eq!(nvml!(lib.nvmlDeviceGetTemperature(gpu, 0, &mut celsius)), 0);
            assert_eq!(
                nvml!(lib.nvmlDeviceGetCurrentClocksEventReasons(gpu, &mut reasons)),
                0
            );
            let [a, b, c, d] = &mut rows;
            assert_eq!(nvml!(lib.nvmlDeviceGetRemappedRows(gpu, a, b, c, d)), 0);
            (celsius, reasons, rows)
        };
        let healthy = read();
        assert_eq!((healthy.1, healthy.2), (1, [0; 4]));
        let mut client = client();
        client.temperature(6, 95).unwrap();
        let reasons = Reasons::Names(vec![
            "hw-slowdown".to_owned(),
            "hw-thermal-slowdown".to_owned(),
        ]);
        client
            .request(&Request::Throttle { gpu: 6, reasons })
            .unwrap();
        let remap = Request::RowRemap {
            gpu: 6,
            correctable: 1,
            uncorrectable: 2,
            pending: true,
            failure: false,
        };
        client.request(&remap).unwrap();
        assert_eq!(read(), (95, 0x48, [1, 2, 1, 0]));
        client.reset(Some(6)).unwrap();
        assert_eq!(read(), healthy);
    });
}

#[test]
fn a_hung_call_returns_when_it_is_let_go() {
    isolated(&[], || {
        let lib = initialised();
        let (sick, well) = (device(&lib, 2).addr(), device(&lib, 1));
        client().hang(Some(2), "nvmlDeviceGetTemperature").unwrap();
        let (returned, returns) = mpsc::channel();
        thread::spawn(move || {
            let lib = crate::process::load();
            let mut celsius = 0;
            let gpu = std::ptr::without_provenance_mut(sick);
            returned
                .send(nvml!(lib.nvmlDeviceGetTemperature(gpu, 0, &mut celsius)))
                .unwrap();
        });
        let mut celsius = 0;
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTemperature(well, 0, &mut celsius)),
            0
        );
        returns
            .recv_timeout(Duration::from_millis(200))
            .unwrap_err();
        client().unhang().unwrap();
        assert_eq!(
            returns
                .recv_timeout(Duration::from_millis(LONG_MS.into()))
                .unwrap(),
            0
        );
    });
}

#[test]
fn the_kernel_log_tells_the_same_story() {
    isolated(&[("NVML_SIM_KMSG", "$FOLDER/kmsg")], || {
        let log = folder().join("kmsg");
        fs::write(&log, "").unwrap();
        let lib = initialised();
        let set = listening(&lib, XID);
        let mut client = client();
        let xid = |code, only| Request::Xid {
            gpu: 5,
            codes: vec![code],
            count: 1,
            only,
        };
        assert_eq!(client.request(&xid(79, None)).unwrap().kmsg_lines, Some(1));
        let silent = client.request(&xid(31, Some(Only::Kmsg))).unwrap();
        assert_eq!((silent.delivered, silent.kmsg_lines), (None, Some(1)));
        assert_eq!(
            client
                .request(&xid(43, Some(Only::Nvml)))
                .unwrap()
                .kmsg_lines,
            None
        );
        client.recovery_action(5, 1).unwrap();
        let events = std::iter::from_fn(|| wait(&lib, set, 0).ok());
        assert_eq!(
            events.map(|event| event.eventData).collect::<Vec<_>>(),
            [79, 43]
        );

        let start = format!(
            "NVRM: Xid (PCI:{}): ",
            Profile::standard().gpu(5).unwrap().pci.kernel()
        );
        let lines = fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = lines
            .lines()
            .map(|line| line.strip_prefix(&start).unwrap())
            .collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(
            lines[0],
            "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
        );
        assert!(lines[1].starts_with("31, pid="), "{lines:?}");
        assert!(
            lines[2].ends_with("from 0x0 (None) to 0x1 (GPU Reset Required)"),
            "{lines:?}"
        );
    });
}

#[test]
fn a_wrong_command_is_refused_in_words() {
    isolated(&[], || {
        let _lib = initialised();
        let mut client = client();
        let mut refused = |request: Request| match client.request(&request) {
            Err(ClientError::Refused(words)) => words,
            other => panic!("{request:?}: {other:?}"),
        };
        assert_eq!(
            refused(Request::Lost { gpu: 8 }),
            "no GPU 8: this node has 0 to 7"
        );
        let many = Request::Xid {
            gpu: 0,
            codes: vec![31],
            count: 4097,
            only: None,
        };
        assert!(refused(many).contains("1 to 4096"));
        let log = Request::Xid {
            gpu: 0,
            codes: vec![31],
            count: 1,
            only: Some(Only::Kmsg),
        };
        assert!(refused(log).contains("NVML_SIM_KMSG"));
        assert!(
            refused(Request::Temperature {
                gpu: 0,
                celsius: 151
            })
            .contains("0 to 150")
        );
        let hang = Request::Hang {
            gpu: None,
            call: Some("nvmlNoSuchThing".to_owned()),
        };
        assert!(refused(hang).contains("nvmlNoSuchThing"));
        let reasons = Reasons::Names(vec!["tired".to_owned()]);
        assert!(refused(Request::Throttle { gpu: 0, reasons }).contains("hw-slowdown"));

        use std::io::{BufRead, BufReader, Write};
        let mut raw = std::os::unix::net::UnixStream::connect(folder().join("sim.sock")).unwrap();
        raw.write_all(b"{\"command\":\"explode\"}\n{\"command\":\"lost\",\"gpu\":0,\"x\":1}\n")
            .unwrap();
        let mut lines = BufReader::new(raw).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            assert!(
                line.contains("\"ok\":false") && line.contains("not a command"),
                "{line}"
            );
        }
    });
}
