//! What kind of board it is: limits, links, topology, fabric, and what a board does not have.

use std::ptr::null_mut;

use crate::process::{device, field, initialised, isolated, number, nvml, struct_version};
use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlPciInfo_t, nvmlPciInfoExt_v1_t,
};

const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const INSUFFICIENT_SIZE: u32 = 7;
const VERSION_MISMATCH: u32 = 25;

#[test]
fn limits_and_clocks_are_the_boards() {
    isolated(&[("NVML_SIM_PROFILE", "b200")], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let (mut min, mut max) = (0, 0);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetPowerManagementLimitConstraints(gpu, &mut min, &mut max)),
            0
        );
        assert_eq!((min, max), (200_000, 1_000_000));
        for limit in [
            number(|out| nvml!(lib.nvmlDeviceGetPowerManagementDefaultLimit(gpu, out))),
            number(|out| nvml!(lib.nvmlDeviceGetEnforcedPowerLimit(gpu, out))),
        ] {
            assert_eq!(limit, 1_000_000);
        }
        // Graphics, SM, memory, video.
        let clocks = |of: u32| number(|out| nvml!(lib.nvmlDeviceGetMaxClockInfo(gpu, of, out)));
        assert_eq!([0, 1, 2, 3].map(clocks), [1965, 1965, 3996, 1717]);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetMaxClockInfo(gpu, 4, &mut min)),
            INVALID_ARGUMENT
        );
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut bar1: nvmlBAR1Memory_t = unsafe { std::mem::zeroed() };
        assert_eq!(nvml!(lib.nvmlDeviceGetBAR1MemoryInfo(gpu, &mut bar1)), 0);
        assert_eq!(
            (bar1.bar1Total, bar1.bar1Free + bar1.bar1Used),
            (262_144 << 20, 262_144 << 20)
        );
        let limits = [187, 188, 189, 190].map(|id| field(&lib, gpu, id, 0).unwrap());
        assert_eq!(limits, [200_000, 1_000_000, 1_000_000, 1_000_000]);
        let margins = [193, 194, 196].map(|id| field(&lib, gpu, id, 0).unwrap());
        assert_eq!(margins, [-8, -2, 0]);
    });
}

#[test]
fn what_a_board_does_not_have_is_not_supported() {
    isolated(&[("NVML_SIM_PROFILE", "v100")], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
        let rows = nvml!(lib.nvmlDeviceGetRemappedRows(gpu, &mut a, &mut b, &mut c, &mut d));
        let mig = nvml!(lib.nvmlDeviceGetMigMode(gpu, &mut a, &mut b));
        // SAFETY: all-zero bytes are valid values of these structs of numbers.
        let (mut fabric, mut histogram) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let fabric = nvml!(lib.nvmlDeviceGetGpuFabricInfo(gpu, &mut fabric));
        let histogram = nvml!(lib.nvmlDeviceGetRowRemapperHistogram(gpu, &mut histogram));
        assert_eq!([rows, mig, fabric, histogram], [NOT_SUPPORTED; 4]);
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetMaxMigDeviceCount(gpu, out))),
            0
        );
        assert_eq!(field(&lib, gpu, 144, 0), Err(NOT_SUPPORTED));
    });
}

#[test]
fn pages_are_retired_where_rows_are_not_remapped() {
    isolated(&[("NVML_SIM_PROFILE", "v100")], || {
        let lib = initialised();
        let gpu = device(&lib, 1);
        let pages = [
            ("retired-pages.double-bit", 3),
            ("retired-pages.pending", 1),
        ];
        crate::process::client().set(1, &pages).unwrap();
        let mut count = 0;
        let retired = nvml!(lib.nvmlDeviceGetRetiredPages(gpu, 1, &mut count, null_mut()));
        assert_eq!((retired, count), (INSUFFICIENT_SIZE, 3));
        let (mut addresses, mut times) = ([0; 4], [0; 4]);
        count = 4;
        let (at, when) = (addresses.as_mut_ptr(), times.as_mut_ptr());
        let retired = nvml!(lib.nvmlDeviceGetRetiredPages_v2(gpu, 1, &mut count, at, when));
        assert_eq!((retired, count, addresses[3]), (0, 3, 0));
        assert!(addresses[0] < addresses[1] && times[2] > 1_600_000_000);
        assert_eq!(
            nvml!(lib.nvmlDeviceGetRetiredPages(gpu, 0, &mut count, at)),
            0
        );
        assert_eq!(count, 0);
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetRetiredPagesPendingStatus(gpu, out))),
            1
        );
        assert_eq!([30, 31].map(|id| field(&lib, gpu, id, 0).unwrap()), [3, 1]);
    });
}

#[test]
fn gpus_are_joined_as_on_the_board() {
    isolated(&[("NVML_SIM_PROFILE", "a100")], || {
        let lib = initialised();
        let first = device(&lib, 0);
        let level = |other| {
            let other = device(&lib, other);
            number(|out| nvml!(lib.nvmlDeviceGetTopologyCommonAncestor(first, other, out)))
        };
        // Itself, below the same switches, on the same socket, on the other.
        assert_eq!([0, 1, 2, 4].map(level), [0, 20, 40, 50]);
        let (mut count, mut near) = (2, [null_mut(); 4]);
        let array = near.as_mut_ptr();
        assert_eq!(
            nvml!(lib.nvmlDeviceGetTopologyNearestGpus(first, 50, &mut count, array)),
            0
        );
        assert_eq!(count, 4);
        assert_eq!(
            near,
            [device(&lib, 4), device(&lib, 5), null_mut(), null_mut()]
        );
        let peer = |other, cap| {
            number(|out| nvml!(lib.nvmlDeviceGetP2PStatus(first, device(&lib, other), cap, out)))
        };
        assert_eq!((peer(5, 2), peer(5, 0), peer(0, 0)), (0, 0, 5));
        for link in 0..12 {
            let down = format!("nvlink.{link}.up");
            crate::process::client().set(5, &[(&down, 0)]).unwrap();
        }
        assert_eq!((peer(5, 2), peer(5, 0)), (5, 0));
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetNumaNodeId(device(&lib, 7), out))),
            1
        );
        let mut cpus = [0; 2];
        assert_eq!(
            nvml!(lib.nvmlDeviceGetCpuAffinity(device(&lib, 7), 2, cpus.as_mut_ptr())),
            0
        );
        assert_eq!(cpus, [0xffff_ffff_0000_0000, 0]);
    });
}

#[test]
fn links_lead_somewhere() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut pci: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
        assert_eq!(
            nvml!(lib.nvmlDeviceGetNvLinkRemotePciInfo_v2(gpu, 5, &mut pci)),
            0
        );
        // Four switches, dealt out in turn.
        assert_eq!(pci.bus, 0x08);
        let kind =
            |link, out: &mut _| nvml!(lib.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, link, out));
        assert_eq!(number(|out| kind(5, out)), 2);
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetNvLinkVersion(gpu, 17, out))),
            4
        );
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetNvLinkCapability(gpu, 0, 0, out))),
            1
        );
        assert_eq!(
            nvml!(lib.nvmlDeviceGetNvLinkState(gpu, 18, &mut 0)),
            INVALID_ARGUMENT
        );
        crate::process::client()
            .set(0, &[("nvlink.5.up", 0)])
            .unwrap();
        assert_eq!(kind(5, &mut 0), NOT_SUPPORTED);
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetNvLinkState(gpu, 5, out))),
            0
        );
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetNvLinkState(gpu, 6, out))),
            1
        );
    });
}

#[test]
fn the_fabric_is_told_in_every_version() {
    isolated(
        &[("NVML_SIM_PROFILE", "gb200"), ("NVML_SIM_GPUS", "4")],
        || {
            let lib = initialised();
            let gpu = device(&lib, 2);
            // SAFETY: all-zero bytes are valid values of these structs of numbers.
            let (mut first, mut third) = unsafe {
                (
                    std::mem::zeroed::<nvmlGpuFabricInfo_t>(),
                    std::mem::zeroed::<nvmlGpuFabricInfo_v3_t>(),
                )
            };
            assert_eq!(nvml!(lib.nvmlDeviceGetGpuFabricInfo(gpu, &mut first)), 0);
            assert_eq!((first.state, first.status, first.cliqueId), (3, 0, 32_766));
            assert_ne!(first.clusterUuid, [0; 16]);
            assert_eq!(
                nvml!(lib.nvmlDeviceGetGpuFabricInfoV(gpu, &mut third)),
                VERSION_MISMATCH
            );
            let figures = [("fabric.health-mask", 0x1a9), ("fabric.health-summary", 3)];
            crate::process::client().set(2, &figures).unwrap();
            third.version = struct_version::<nvmlGpuFabricInfo_v2_t>(2);
            assert_eq!(nvml!(lib.nvmlDeviceGetGpuFabricInfoV(gpu, &mut third)), 0);
            // The second version ends before the summary.
            assert_eq!((third.healthMask, third.healthSummary), (0x1a9, 0));
            third.version = struct_version::<nvmlGpuFabricInfo_v3_t>(3);
            assert_eq!(nvml!(lib.nvmlDeviceGetGpuFabricInfoV(gpu, &mut third)), 0);
            assert_eq!((third.healthMask, third.healthSummary), (0x1a9, 3));
            // The switches are in other trays.
            // SAFETY: all-zero bytes are a valid value of this struct of numbers.
            let mut pci: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
            let remote = nvml!(lib.nvmlDeviceGetNvLinkRemotePciInfo_v2(gpu, 0, &mut pci));
            assert_eq!(remote, NOT_SUPPORTED);
        },
    );
}

#[test]
fn a_versioned_struct_has_to_say_which_it_is() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut pci: nvmlPciInfoExt_v1_t = unsafe { std::mem::zeroed() };
        assert_eq!(
            nvml!(lib.nvmlDeviceGetPciInfoExt(gpu, &mut pci)),
            VERSION_MISMATCH
        );
        pci.version = struct_version::<nvmlPciInfoExt_v1_t>(1);
        assert_eq!(nvml!(lib.nvmlDeviceGetPciInfoExt(gpu, &mut pci)), 0);
        assert_eq!((pci.bus, pci.baseClass), (0x1b, 3));
    });
}
