use super::*;

#[track_caller]
fn xid_of(line: &str) -> Xid {
    match parse_line(line) {
        Some(Parsed::Xid(xid)) => xid,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn check(line: &str, expected: &Parsed) {
    assert_eq!(parse_line(line).as_ref(), Some(expected), "{line}");
}

#[test]
fn n8_the_injected_mark_makes_a_drill() {
    let line = |mark| {
        format!(
            "NVRM: Xid (PCI:0000:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 {mark} Link 01 (0x021425c6 0x00000001)"
        )
    };
    assert!(xid_of(&line("i1")).injected);
    assert!(!xid_of(&line("i0")).injected);
    assert!(xid_of(&format!("12,1,2,-;{}", line("i0"))).injected);
    let nvlink = xid_of(&line("i1")).nvlink.unwrap();
    let expected = NvLink {
        unit: "NETIR_LINK_EVT".to_owned(),
        fatal: true,
        link: 1,
        intr_info: Some(0x0214_25c6),
        error_status: Some(1),
    };
    assert_eq!(nvlink, expected);
}

#[test]
fn a_process_name_forges_nothing() {
    let xid = xid_of(
        "NVRM: Xid (PCI:0000:01:00): 145, pid=1, name=a, XC0 i1 Link, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x1 0x2)",
    );
    assert!(!xid.injected);
    assert_eq!(xid.nvlink.unwrap().link, 13);
    let xid = xid_of("NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=): 79, , Ch 00000008");
    assert_eq!((xid.code, xid.process.as_deref()), (31, Some("): 79")));
    let xid = xid_of("NVRM: Xid (PCI:0000:01:00): 45, pid=1, name=GPU-I:05, Ch 1");
    assert_eq!(xid.instance, None);
}

#[test]
fn a_number_that_may_have_been_cut_is_not_believed() {
    check("NVRM: Xid (PCI:0000:01:00): 7", &Parsed::Unparsed);
    check("NVRM: Xid (PCI:0000:01:00): 79x, text", &Parsed::Unparsed);
    check("NVRM: Xid (PCI:0000:01:00): , text", &Parsed::Unparsed);
    check(
        "NVRM: Xid (PCI:0000:01:00): 9999999999, text",
        &Parsed::Unparsed,
    );
    check("NVRM: Xid (PCI:0000:zz:00): 79, text", &Parsed::Unparsed);
    check("NVRM: Xid: 79", &Parsed::Unparsed);
    check(
        "nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013",
        &Parsed::Unparsed,
    );
    check(
        "nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013, Strange, text",
        &Parsed::Unparsed,
    );
    assert_eq!(xid_of("NVRM: Xid (PCI:0000:01:00): 79, ").code, 79);
}

#[test]
fn n4_mig_instances_and_recovery_actions_are_read() {
    let xid = xid_of("NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:02): 94, pid=7194, Contained: CE");
    assert_eq!(xid.instance.as_deref(), Some("GPU-I:05 GPU-CI:02"));
    assert_eq!(xid.pid, Some(7194));
    let xid = xid_of(
        "NVRM: Xid (PCI:0000:01:00): 154, pid=1, name=x, GPU recovery action changed from 0x4 (Drain and Reset) to 0x12 (New)",
    );
    assert_eq!(
        xid.recovery,
        Some(Recovery {
            previous: 4,
            action: 0x12
        })
    );
    assert_eq!(
        xid_of("NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x4").recovery,
        None
    );
}

#[test]
fn a_gpu_off_the_bus_is_seen_in_every_wording() {
    let pci: PciAddress = "0000:b3:00.0".parse().unwrap();
    for line in [
        "NVRM: GPU 0000:b3:00.0: GPU has fallen off the bus.",
        "NVRM: GPU at 0000:b3:00.0 has fallen off the bus.",
        "NVRM: GPU at PCI:0000:b3:00: GPU has fallen off the bus.",
        "4,1,2,-;NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
    ] {
        match parse_line(line) {
            Some(Parsed::Lost(lost)) => assert_eq!(lost.pci, pci, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    check("NVRM: GPU at PCI:0000:b3:00: GPU-\u{1b}[2J", &Parsed::Other);
}

#[test]
fn old_addresses_are_bus_and_device() {
    assert_eq!(
        xid_of("NVRM: Xid (0003:00): 8, Channel").pci.to_string(),
        "0000:03:00.0"
    );
    assert_eq!(
        xid_of("NVRM: Xid (0000:00:05): 9, Channel").pci.to_string(),
        "0000:00:05.0"
    );
    check("NVRM: Xid (0103:00): 8, Channel", &Parsed::Unparsed);
}
