//! One fault, told of by NVML's event, by the kernel's line, by a loss and by the recovery action, in one order and in the
//! other: the same incidents come of it (design N4, N5).

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{ConditionStatus, Gpu, Health, Incident};
use device_api_tests::{Native, Node, PATIENCE, condition_of, health_of};
use nvml_sim::control::{Only, Request};

/// What tells of it.
#[derive(Clone, Copy, Debug)]
enum Tells {
    /// NVML's event of XID 79.
    Event,
    /// The kernel's line of XID 79.
    Line,
    /// `GPU_IS_LOST`.
    Loss,
    /// The kernel's line of XID 154: a reboot is wanted.
    Wish,
    /// Field 230 says so.
    Field,
}

use Tells::{Event, Field, Line, Loss, Wish};

/// Of a lost GPU no field is read. A wish comes after its cause, as its root is looked for when it comes.
const ORDERS: [&[Tells]; 6] = [
    &[Line, Event, Loss, Wish],
    &[Event, Line, Wish, Loss],
    &[Loss, Line, Event, Wish],
    &[Line, Loss, Event, Wish],
    &[Event, Field, Wish, Loss, Line],
    &[Line, Wish, Field, Event, Loss],
];

/// Has it told, and waits until it has been.
async fn tell(node: &Node, client: &mut Native, gpu: u32, tells: Tells) -> Result<()> {
    let mut sim = node.sim()?;
    let only = |only| Request::Xid {
        gpu,
        codes: vec![79],
        count: 1,
        only: Some(only),
    };
    let uuid = node.uuid(gpu)?;
    let (code, source) = match tells {
        Event => {
            sim.request(&only(Only::Nvml))?;
            (79, "nvml")
        }
        Line => {
            sim.request(&only(Only::Kmsg))?;
            (79, "kmsg")
        }
        Loss => {
            sim.lost(gpu)?;
            let lost = |gpu: &Gpu| {
                let lost = condition_of(gpu, "GpuLost");
                lost.is_some_and(|lost| lost.status() == ConditionStatus::True)
            };
            let mut watch = client.watch(0).await?;
            watch.until(&uuid, "lost", lost).await?;
            return Ok(());
        }
        Wish => {
            let pci = node.gpus().into_iter().find(|it| it.index == gpu);
            let pci = pci.context("no such GPU")?.pci.kernel();
            let line = format!(
                "NVRM: Xid (PCI:{pci}): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
            );
            node.kernel_log([&*line])?;
            (154, "kmsg")
        }
        Field => {
            sim.request(&Request::RecoveryAction {
                gpu,
                value: 2,
                only: Some(Only::Nvml),
            })?;
            (154, "field-230")
        }
    };
    let start = Instant::now();
    loop {
        let all = of(client, &uuid).await?;
        let told = |one: &Incident| {
            let mut accounts = one.accounts.iter();
            let is_asked = one.kind == "recovery-action" && code == 154;
            (one.code == Some(code) || is_asked) && accounts.any(|it| it.source == source)
        };
        if all.iter().any(told) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{tells:?} is not told: {all:#?}"
        );
        tokio::task::yield_now().await;
    }
}

async fn of(client: &mut Native, uuid: &str) -> Result<Vec<Incident>> {
    let all = client.incidents().await?;
    Ok(all.into_iter().filter(|it| it.device == uuid).collect())
}

#[tokio::test]
async fn n4_n5_a_gpu_off_the_bus_is_the_same_incidents_in_whatever_order_it_is_told() -> Result<()>
{
    let node = Node::builder()?.with_the_drivers_lines().start()?;
    let mut client = node.healthy().await?;
    for (gpu, order) in (1..).zip(ORDERS) {
        for tells in order {
            tell(&node, &mut client, gpu, *tells).await?;
        }
        let uuid = node.uuid(gpu)?;
        let told = of(&mut client, &uuid).await?;
        let [fallen, asked] = &told[..] else {
            anyhow::bail!("{order:?}: {told:#?}");
        };
        assert_eq!((&*fallen.kind, fallen.code), ("xid", Some(79)), "{order:?}");
        assert_eq!(
            (asked.code, asked.root),
            (Some(154), fallen.id),
            "{order:?}"
        );
        assert_eq!(fallen.root, 0, "{order:?}");
        let sources = |one: &Incident| -> Vec<String> {
            let mut all: Vec<_> = one.accounts.iter().map(|it| it.source.clone()).collect();
            all.sort();
            all
        };
        assert_eq!(sources(fallen), ["kmsg", "nvml"], "{order:?}");
        let shown = client.get(&uuid).await?;
        let status = shown.status.clone().context("no status")?;
        assert_eq!(health_of(&shown), Health::Unhealthy);
        assert_eq!(status.recommended_action, "RESTART_BM", "{order:?}");
        for type_ in ["GpuLost", "XidCriticalError"] {
            let condition = condition_of(&shown, type_).context("missing")?;
            assert_eq!(condition.incident, fallen.id, "{order:?}: {type_}");
        }
    }
    Ok(())
}
