//! A warm call: the component through the host's conversion and validation, over the same logic in native
//! Rust.

use std::sync::mpsc;

use anyhow::{Context as _, Result, anyhow};
use bench_kit::{Figures, Goal, Row, Section};
use device_api_core::policy::Evaluation;
use device_api_core::ports::Policy as _;
use device_policy_sdk::Policy;
use nvml_health::NvmlHealth;
use xid_policy::XidPolicy;

use crate::asked::Asked;
use crate::judges;
use crate::native::Native;
use crate::plan::Plan;
use crate::turns::{Lane, Rounds, take_turns};

/// Design section 8, in µs.
const OVER_NATIVE_MAX: f64 = 10.0;
const FULL_CALL_MAX: f64 = 250.0;

/// # Errors
/// A policy can't be loaded, fails, or says something else than its native twin.
pub(crate) fn measure(plan: &Plan) -> Result<Section> {
    let mut section = Section::new(
        "calls",
        "A warm call of a policy, over the same logic in native Rust",
    );
    rows::<XidPolicy>(&mut section, &Asked::xids()?, plan)?;
    rows::<NvmlHealth>(&mut section, &Asked::readings()?, plan)?;
    Ok(section)
}

fn rows<P: Policy>(section: &mut Section, asked: &Asked, plan: &Plan) -> Result<()> {
    let name = asked.policy.name;
    eprintln!("{name}");
    let one = Timed::of::<P>(asked, &asked.one, plan)?;
    let over = one.call.over(&one.native).spread().context("no rounds")?;
    let row = Row::new(format!("{name}, 1 signal, over native"), "µs", over);
    let row = row.goal(Goal::AtMost(OVER_NATIVE_MAX));
    section.rows.push(row.with(one.figures()));
    let hop = one.threaded.over(&one.call).spread().context("no rounds")?;
    let case = format!("{name}, way to its thread and back");
    section.rows.push(Row::new(case, "µs", hop));

    let many = Timed::of::<P>(asked, &asked.many, plan)?;
    let full = many.call.spread().context("no rounds")?;
    let case = format!("{name}, {} signals, all in all", asked.many.signals.len());
    let row = Row::new(case, "µs", full).goal(Goal::AtMost(FULL_CALL_MAX));
    section.rows.push(row.with(many.figures()));

    let late = Timed::of::<P>(asked, &asked.late(&asked.one), plan)?;
    let over = late.call.over(&late.native).spread().context("no rounds")?;
    let case = format!(
        "{name}, 1 signal after {} others, over native",
        asked.before
    );
    section
        .rows
        .push(Row::new(case, "µs", over).with(late.figures()));
    Ok(())
}

/// One evaluation, in turn.
struct Timed {
    native: Rounds,
    /// On the thread that asks.
    call: Rounds,
    /// As the pipeline asks, and waiting for the answer.
    threaded: Rounds,
}

impl Timed {
    fn figures(&self) -> impl Iterator<Item = Figures> {
        let lanes = [
            self.native.figures("native"),
            self.call.figures("call"),
            self.threaded.figures("thread"),
        ];
        lanes.into_iter().flatten()
    }

    fn of<P: Policy>(asked: &Asked, evaluation: &Evaluation, plan: &Plan) -> Result<Self> {
        let mut instance = judges::instance(asked.policy)?;
        let policy = judges::threaded(asked.policy)?;
        let mut native = Native::<P>::new(evaluation)?;
        let said = instance.evaluate(evaluation.clone());
        native.check(&said.map_err(|failure| anyhow!(failure))?)?;
        let (answer, answers) = mpsc::sync_channel(1);
        let lanes: [Lane<'_>; 3] = [
            Box::new(|| native.call().map(drop)),
            Box::new(|| {
                let outcome = instance.evaluate(evaluation.clone());
                outcome.map(drop).map_err(|failure| anyhow!(failure))
            }),
            Box::new(|| {
                let answer = answer.clone();
                let reply = move |outcome| {
                    // Nobody waits any more where the benchmark has failed.
                    let _ = answer.send(outcome);
                };
                policy.evaluate(evaluation.clone(), Box::new(reply));
                let outcome = answers.recv().context("no answer")?;
                outcome.map(drop).map_err(|failure| anyhow!(failure))
            }),
        ];
        let mut lanes = lanes;
        let calls = (plan.signals / evaluation.signals.len()).max(1);
        let measured = take_turns(plan.rounds, calls, &mut lanes)?;
        drop(lanes);
        let [native, call, threaded] =
            <[Rounds; 3]>::try_from(measured).map_err(|_| anyhow!("a lane without rounds"))?;
        Ok(Self {
            native,
            call,
            threaded,
        })
    }
}
