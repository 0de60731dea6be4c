//! What a smaller record would save: the same calls, with signals that lack what is text.
//!
//! A policy that is told less may decide otherwise, and faster. So the saving is that of the component less
//! that of its native twin: what is left is lowering, which is copying each text into the guest's memory
//! after asking the guest for room.

use anyhow::{Context as _, Result, anyhow};
use bench_kit::{Row, Section, Spread};
use device_api_core::policy::Evaluation;
use device_api_core::signal::Signal;
use xid_policy::XidPolicy;

use crate::asked::Asked;
use crate::judges;
use crate::native::Native;
use crate::plan::Plan;
use crate::turns::{Lane, Rounds, take_turns};

type Strip = fn(&mut Signal);

const STRIPPED: [(&str, Strip); 4] = [
    ("evidence", |signal| signal.evidence.clear()),
    ("attributes", |signal| signal.attrs.clear()),
    ("sources", |signal| signal.sources.clear()),
    ("all three", |signal| {
        signal.evidence.clear();
        signal.attrs.clear();
        signal.sources.clear();
    }),
];

/// # Errors
/// A policy can't be loaded, or fails.
pub(crate) fn measure(plan: &Plan) -> Result<Section> {
    eprintln!("records");
    let asked = Asked::xids()?;
    let signals = asked.many.signals.len();
    let mut section = Section::new(
        "record",
        format!("What a smaller record would save: {signals} signals for xid-policy in one call"),
    );
    let forms = std::iter::once(asked.many.clone())
        .chain(STRIPPED.map(|(_, strip)| stripped(&asked.many, strip)));
    let costs = crossing(&asked, &forms.collect::<Vec<_>>(), plan)?;
    let [full, rest @ ..] = costs.as_slice() else {
        return Ok(section);
    };
    let whole = full.spread().context("no rounds")?;
    let row = Row::new("crossing into the component, over native", "µs", whole);
    section.rows.push(row);
    for ((what, _), form) in STRIPPED.iter().zip(rest) {
        let saved = full.over(form);
        let spread = saved.spread().context("no rounds")?;
        let case = format!("saved without {what}");
        section.rows.push(Row::new(case, "µs", spread));
    }
    if let Some(bare) = rest.last() {
        let pairs = full.0.iter().zip(&bare.0);
        let share = Spread::of(pairs.map(|(full, bare)| 100.0 * (full - bare) / full));
        let case = "share of all three in the crossing";
        section
            .rows
            .extend(share.map(|share| Row::new(case, "%", share)));
    }
    Ok(section)
}

fn stripped(evaluation: &Evaluation, strip: Strip) -> Evaluation {
    let mut signals = evaluation.signals.to_vec();
    signals.iter_mut().for_each(strip);
    Evaluation {
        signals: signals.into(),
        ..evaluation.clone()
    }
}

/// What each form costs in the component over native, in turn.
fn crossing(asked: &Asked, forms: &[Evaluation], plan: &Plan) -> Result<Vec<Rounds>> {
    let mut lanes: Vec<Lane<'_>> = Vec::new();
    for form in forms {
        let mut native = Native::<XidPolicy>::new(form)?;
        let mut instance = judges::instance(asked.policy)?;
        lanes.push(Box::new(move || native.call().map(drop)));
        lanes.push(Box::new(move || {
            let outcome = instance.evaluate(form.clone());
            outcome.map(drop).map_err(|failure| anyhow!(failure))
        }));
    }
    let calls = (plan.signals / asked.many.signals.len()).max(1);
    let measured = take_turns(plan.rounds, calls, &mut lanes)?;
    let pairs = measured.chunks_exact(2).filter_map(|pair| match pair {
        [native, component] => Some(component.over(native)),
        _ => None,
    });
    Ok(pairs.collect())
}
