//! docs/writing-policies.md: what it shows compiles, and its test passes.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

#[expect(unreachable_pub, reason = "as an author has it, in a crate of its own")]
mod policy {
    use device_policy_sdk::types::{Decision, Device, Severity, Signal};
    use device_policy_sdk::verdict::{ok, problem};
    use device_policy_sdk::{
        Host, HostExt as _, Info, Policy, clear, info, kind, reading, subscribe,
    };

    /// What `configure` made of the config; nothing else may be remembered here.
    pub struct PcieWidth;

    impl Policy for PcieWidth {
        fn configure(_config: &str) -> Result<(Self, Info), String> {
            let info = info("pcie-width", "1.0.0")
                .owns("PcieWidth", true, &["Narrow", "Full"])
                .readings(&[reading::PCIE_LINK_WIDTH, reading::PCIE_LINK_WIDTH_MAX])
                .subscribe(subscribe::all(kind::GPU_FOUND))
                .subscribe(subscribe::reading(reading::PCIE_LINK_WIDTH, 0));
            Ok((Self, info))
        }

        fn evaluate(
            &self,
            host: &mut dyn Host,
            _: &Device,
            signals: &[Signal],
        ) -> Result<Decision, String> {
            let mut decision = Decision::default();
            let width = (
                host.int(reading::PCIE_LINK_WIDTH),
                host.int(reading::PCIE_LINK_WIDTH_MAX),
            );
            let (Some(signal), (Some(now), Some(max))) = (signals.last(), width) else {
                return Ok(decision); // the device does not tell: say nothing
            };
            let verdict = if now < max {
                problem("PcieWidth", Severity::Warning, "Narrow", signal)
                    .message(format!(
                        "The PCIe link runs {now} of {max} lanes: reseat the board."
                    ))
                    .clears(&[clear::POLICY, clear::OPERATOR])
            } else {
                ok("PcieWidth", "Full", signal)
            };
            decision.verdicts.push(verdict.into());
            Ok(decision)
        }
    }

    device_policy_sdk::export!(PcieWidth);
}

mod tests {
    use super::policy::PcieWidth;

    use device_policy_sdk::{
        kind, reading,
        testing::Bench,
        types::{Judgement, Value},
    };

    #[test]
    fn a_narrow_link_is_a_warning() {
        let mut bench = Bench::<PcieWidth>::new("");
        bench
            .host
            .readings
            .insert(reading::PCIE_LINK_WIDTH.to_owned(), Value::Int(8));
        bench
            .host
            .readings
            .insert(reading::PCIE_LINK_WIDTH_MAX.to_owned(), Value::Int(16));
        let found = bench.signal(kind::GPU_FOUND);
        bench.evaluate(&[found]).unwrap();
        assert_eq!(
            bench.condition("PcieWidth").unwrap().state,
            Judgement::Problem
        );
    }
}

/// What is in a module of this file, up to the next one.
fn module(name: &str) -> &'static str {
    let (_, rest) = include_str!("writing_policies.rs")
        .split_once(&format!("\nmod {name} {{"))
        .unwrap();
    rest.split_once("\n}\n").unwrap().0
}

/// The page breaks lines where it reads best.
fn words(text: &str) -> String {
    text.chars()
        .filter(|char| !char.is_whitespace() && *char != ',')
        .collect()
}

#[test]
fn the_page_shows_what_is_compiled_here() {
    let page = include_str!("../../docs/writing-policies.md");
    let blocks = page
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0);
    let blocks: Vec<_> = blocks.map(words).collect();
    let tests = words(module("tests")).replacen("usesuper::policy::PcieWidth;", "", 1);
    assert_eq!(
        blocks,
        [words(module("policy")), tests],
        "left: the page, right: this file"
    );
}
