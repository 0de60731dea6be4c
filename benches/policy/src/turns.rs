//! Lanes that are compared take turns, a short round each, so that what the machine does besides falls
//! on all alike.

use std::time::Instant;

use anyhow::Result;
use bench_kit::{Figures, Spread};

/// One thing that is measured: does it once.
pub(crate) type Lane<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// What the rounds of a lane took, in µs a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

/// A round of each to warm up, then rounds in turn, every other time backwards, so that none is always
/// first.
///
/// # Errors
/// A call fails.
pub(crate) fn take_turns(
    rounds: usize,
    calls: usize,
    lanes: &mut [Lane<'_>],
) -> Result<Vec<Rounds>> {
    let mut measured = vec![Rounds::default(); lanes.len()];
    for turn in 0..=rounds {
        let mut order: Vec<_> = lanes.iter_mut().zip(&mut measured).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for (lane, rounds) in order {
            let began = Instant::now();
            for _ in 0..calls {
                lane()?;
            }
            let us = began.elapsed().as_secs_f64() * 1e6 / calls as f64;
            if turn > 0 {
                rounds.0.push(us);
            }
        }
    }
    Ok(measured)
}

impl Rounds {
    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(self.0.iter().copied())
    }

    /// What this one took longer than another, turn by turn.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(one, other)| one - other)
                .collect(),
        )
    }

    pub(crate) fn figures(&self, lane: &str) -> Option<Figures> {
        Some(Figures {
            lane: lane.to_owned(),
            values: vec![("µs", self.spread()?.median)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_rounds_and_none_is_always_first() {
        use std::cell::RefCell;
        let order = RefCell::new(String::new());
        let lane = |name: char| -> Lane<'_> {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(name);
                Ok(())
            })
        };
        let measured = take_turns(2, 1, &mut [lane('a'), lane('b')]).unwrap();
        assert_eq!(order.into_inner(), "abbaab");
        assert!(measured.iter().all(|rounds| rounds.0.len() == 2));
    }
}
