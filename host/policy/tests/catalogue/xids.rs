//! docs/xids.md: for every XID what we do, why, and what clears it; asked of the component.

use std::time::Duration;

use device_api_core::floor;
use device_api_core::signal::{Attr, Signal};
use device_api_core::verdict::{Severity, Verdict};
use device_api_core::xid::catalog;
use device_api_policy::LoadedPolicy;

use crate::asked::{DRIVER, Gpu, alone, health, profile, xid};
use crate::bare::bare;
use crate::decode;
use crate::pages::{COMMAND, clears, name, runs, why};

const INTRODUCTION: &str = "\
# XIDs: what we do, why, and what clears it

What `xid-policy` answers by default (profile `vendor`), for every code of the vendor's catalogue, asked of the very
component that the daemon carries. Another profile, or words of your own: [xid-policy.md](xid-policy.md). Where other
systems answer otherwise: [comparison.md](comparison.md).

- **Health**: Unhealthy, nothing may run; Degraded, it works and needs care; Healthy, it is not the GPU's fault.
- **Action**: the words of [actions.md](actions.md). `NONE` on an application's fault means: restart the application.
- **Clears**: any one of these; never a mere restart of the daemon. *By hand* is `devicectl gpu clear GPU CONDITION
  --reason …`, audited. \"10 min without another\" counts from the last one. [clears.md](clears.md) has the details.
- **†**: one of the host's floor: no policy and no configuration may say less, unless it is granted.

What a GPU shows now, by which rule, on what evidence and what clears it: `devicectl gpu explain GPU`.
";

/// One code, or several that have the same answer and no name of their own.
struct Line {
    codes: Vec<u64>,
    name: String,
    verdict: Verdict,
}

impl Line {
    fn row(&self) -> String {
        let first = self.codes[0];
        let codes = match self.codes.len() {
            1 => format!("{first}{}", mark(first)),
            _ => runs(&self.codes),
        };
        format!(
            "| {codes} | {} | `{}` | `{}` | {} | {} |\n",
            self.name,
            self.verdict.condition,
            self.verdict.action.as_str(),
            why(first, &self.verdict),
            clears(&self.verdict)
        )
    }
}

fn mark(code: u64) -> &'static str {
    let is_floor = code == floor::XID_DOUBLE_BIT || floor::of(&xid(code, "")).is_some();
    if is_floor { "†" } else { "" }
}

fn lines(policy: &LoadedPolicy) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for entry in catalog() {
        let verdict = alone(policy, DRIVER, xid(entry.code, ""));
        let name = name(entry);
        let nameless = matches!(name.as_str(), "Unused" | "—");
        let alike = |line: &&mut Line| {
            line.name == name
                && line.verdict.condition == verdict.condition
                && why(line.codes[0], &line.verdict) == why(entry.code, &verdict)
        };
        match lines.iter_mut().find(alike).filter(|_| nameless) {
            Some(line) => line.codes.push(entry.code),
            None => lines.push(Line {
                codes: vec![entry.code],
                name,
                verdict,
            }),
        }
    }
    lines
}

pub(crate) fn page() -> String {
    let policy = profile("vendor");
    let lines = lines(&policy);
    let mut text = INTRODUCTION.to_owned();
    text += &format!("\nGenerated; {COMMAND} writes it anew.\n");
    for (severity, title) in [
        (Severity::Fatal, "Unhealthy"),
        (Severity::Warning, "Degraded"),
        (Severity::Info, "Healthy"),
    ] {
        let of: Vec<&Line> = lines
            .iter()
            .filter(|line| line.verdict.severity == severity)
            .collect();
        let codes: usize = of.iter().map(|line| line.codes.len()).sum();
        text += &format!(
            "\n## {title}: {codes} codes\n\nA code that comes alone, and of which no more is told than its number.\n\n\
             | XID | what | condition | action | why | clears |\n| --- | --- | --- | --- | --- | --- |\n"
        );
        text.extend(of.into_iter().map(Line::row));
    }
    text += &unknown(&policy);
    text += &workflows(&policy);
    text += &generations(&policy);
    text
}

fn unknown(policy: &LoadedPolicy) -> String {
    let verdict = alone(policy, DRIVER, xid(9999, ""));
    format!(
        "\n## A code that the catalogue does not know\n\n{}, `{}`, `{}`: {}. Clears: {}. Never more than that, unless it is \
         configured.\n",
        health(verdict.severity),
        verdict.condition,
        verdict.action.as_str(),
        why(9999, &verdict),
        clears(&verdict)
    )
}

/// A story of one code that is more than its number: what was seen, and what then is said.
struct Story {
    code: u64,
    seen: &'static str,
    verdict: Verdict,
}

fn workflows(policy: &LoadedPolicy) -> String {
    let mut text = "\n## Where more than the number counts\n\n\
        | XID | seen | health | condition | action | why | clears |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for Story {
        code,
        seen,
        verdict,
    } in stories(policy)
    {
        text += &format!(
            "| {code} | {seen} | {} | `{}` | `{}` | {} | {} |\n",
            health(verdict.severity),
            verdict.condition,
            verdict.action.as_str(),
            why(code, &verdict)
                .split(" Evidence: ")
                .next()
                .unwrap_or_default()
                .trim_end_matches('.'),
            clears(&verdict)
        );
    }
    text
}

fn stories(policy: &LoadedPolicy) -> Vec<Story> {
    let hour = Duration::from_secs(3600);
    let one = |code: u64, seen, evidence: &str| Story {
        code,
        seen,
        verdict: alone(policy, DRIVER, xid(code, evidence)),
    };
    let repeated = |code: u64, seen, evidence: &str| {
        let mut gpu = Gpu::new(policy, DRIVER);
        for _ in 0..3 {
            gpu.see(xid(code, evidence));
            gpu.pass(hour);
        }
        let verdict = gpu.said["XidRepeats"].clone();
        Story {
            code,
            seen,
            verdict,
        }
    };
    let mut contained = Gpu::new(policy, DRIVER);
    contained.see_at_once(xid(48, ""));
    contained.see_at_once(xid(94, ""));
    let contained = Story {
        code: 48,
        seen: "with a 63 or a 94 within a second, in any order",
        verdict: contained.said["XidDegraded"].clone(),
    };
    let rooted = Signal {
        attrs: vec![Attr::int("caused-by", 149)],
        ..xid(45, "")
    };
    let rooted = Story {
        code: 45,
        seen: "`caused by previous Xid 149`",
        verdict: alone(policy, DRIVER, rooted),
    };
    let link = |registers: &str| format!("NVLink: fatal error detected on link 14({registers})");
    let mut stories = vec![
        repeated(
            13,
            "three times in a day on the same GPC and TPC",
            "Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
        ),
        repeated(31, "three times in a day on the same GPU", "MMU Fault"),
        rooted,
        contained,
        one(
            74,
            "only bits that the guidance says to ignore",
            &link("0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0"),
        ),
        one(
            74,
            "register 1, bit 4 or 5",
            &link("0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0"),
        ),
        one(
            74,
            "register 3, bit 16",
            &link("0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0"),
        ),
    ];
    stories.extend(told_twice(policy));
    stories.extend(recovery_actions(policy));
    stories
}

/// NVML tells the code, the kernel's line the words of it.
fn told_twice(policy: &LoadedPolicy) -> [Story; 3] {
    let line = "RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004 0x0)";
    let story = |seen, gpu: &Gpu<'_>| Story {
        code: 145,
        seen,
        verdict: gpu.worst().expect("something is said").clone(),
    };
    let mut gpu = Gpu::new(policy, DRIVER);
    gpu.see_at_once(bare(145));
    let waits = story(
        "by NVML, and the kernel's line is not there yet; for a second",
        &gpu,
    );
    gpu.see_at_once(xid(145, line));
    let both = story("by NVML and the kernel's line, in any order", &gpu);
    let mut gpu = Gpu::new(policy, DRIVER);
    gpu.see(bare(145));
    let none = story("by NVML, and no line of the kernel within a second", &gpu);
    [waits, both, none]
}

fn recovery_actions(policy: &LoadedPolicy) -> impl Iterator<Item = Story> {
    let told = [
        (1, "to `0x1 (GPU Reset Required)`"),
        (2, "to `0x2 (Node Reboot Required)`"),
        (3, "to `0x3 (Drain P2P)`"),
        (4, "to `0x4 (Drain and Reset)`"),
        (9, "to a number that nobody knows"),
    ];
    told.into_iter().map(|(action, seen)| {
        let signal = Signal {
            attrs: vec![Attr::int("action", action)],
            ..xid(154, "")
        };
        Story {
            code: 154,
            seen,
            verdict: alone(policy, DRIVER, signal),
        }
    })
}

fn generations(policy: &LoadedPolicy) -> String {
    let mut text = "\n## 144 to 150, decoded\n\n\
        Where the kernel's line tells `intrInfo` and `errorStatus`, the vendor's table of 95 rows (98 cases) decides, by \
        driver generation; a table test asks all of them. NVML tells the number alone: it waits a second for the line, as does \
        that of 74 ([xid-policy.md](xid-policy.md#codes-that-the-kernels-line-decides)). What the table's cases come to:\n\n\
        | driver | Unhealthy | Degraded | Healthy |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for (driver, [healthy, degraded, unhealthy]) in decode::tally(policy) {
        text += &format!("| {driver} | {unhealthy} | {degraded} | {healthy} |\n");
    }
    text + "\nWhere the driver's version is not known both layouts are tried, and the worse counts.\n"
}
