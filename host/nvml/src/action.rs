//! What the driver asks to be done with a GPU: field 230, and calls that answer RESET_REQUIRED, which is the same
//! wish in the words of a driver that has no such field, or of a GPU that tells nothing any more.

use std::collections::BTreeSet;

use crate::call::CallFailed;
use crate::readings::{Batch, recovery_action};

/// Field 230's number for a GPU reset.
const GPU_RESET: i64 = 1;

#[derive(Debug, Default)]
pub(crate) struct RecoveryAction {
    /// Field 230, as last read.
    field: Option<i64>,
    /// The readings that last answered RESET_REQUIRED.
    awaiting_reset: BTreeSet<&'static str>,
    told: Option<i64>,
}

/// What the driver asks for, where that is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) action: i64,
    pub(crate) evidence: String,
    /// It is field 230 that says so.
    pub(crate) is_field: bool,
}

impl RecoveryAction {
    /// At first sight only a wish for an action is news: none is what the sample that comes with a found GPU says.
    pub(crate) fn take(&mut self, batch: &Batch) -> Option<Wish> {
        if batch.cut_short.is_some() {
            return None;
        }
        let first = batch.awaiting_reset.first().map(|(_, failed)| failed);
        self.read(recovery_action(&batch.samples), &batch.asked);
        let awaiting = batch.awaiting_reset.iter().map(|(key, _)| *key);
        self.awaiting_reset.extend(awaiting);
        self.news(first)
    }

    fn read(&mut self, field: Option<i64>, asked: &[&'static str]) {
        self.awaiting_reset.retain(|key| !asked.contains(key));
        self.field = field.or(self.field);
    }

    fn news(&mut self, first: Option<&CallFailed>) -> Option<Wish> {
        let field = self.field.filter(|action| *action != 0);
        let (action, is_field) = match (field, self.awaiting_reset.is_empty()) {
            (Some(action), _) => (action, true),
            (None, false) => (GPU_RESET, false),
            (None, true) => (0, self.field.is_some()),
        };
        if self.told.replace(action).unwrap_or_default() == action {
            return None;
        }
        let evidence = match (is_field, first) {
            (true, _) => format!("NVML field 230 (recovery action) is {action}"),
            (false, Some(failed)) => format!("{failed}: the GPU is of no use until it is reset"),
            (false, None) => "no call of NVML's answers RESET_REQUIRED any more".to_owned(),
        };
        Some(Wish {
            action,
            evidence,
            is_field,
        })
    }
}

#[cfg(test)]
mod tests {
    use nvml_wrapper::error::NvmlError;

    use super::*;

    /// What is told of a batch in which `asked` were read, `awaiting` of them in vain.
    fn told(
        action: &mut RecoveryAction,
        field: Option<i64>,
        asked: &[&'static str],
        awaiting: &[&'static str],
    ) -> Option<i64> {
        let failed = CallFailed::new("nvmlX", NvmlError::ResetRequired);
        action.read(field, asked);
        action.awaiting_reset.extend(awaiting);
        let wish = action.news(Some(&failed).filter(|_| !awaiting.is_empty()))?;
        assert!(!wish.is_field || field.is_some() || action.field.is_some());
        Some(wish.action)
    }

    #[test]
    fn field_230_is_news_when_it_changes() {
        let mut quiet = RecoveryAction::default();
        let news: Vec<_> = [0, 0, 1, 1, 0]
            .map(|action| told(&mut quiet, Some(action), &[], &[]))
            .into();
        assert_eq!(news, [None, None, Some(1), None, Some(0)]);
        let mut asking = RecoveryAction::default();
        let first = told(&mut asking, Some(2), &[], &[]);
        assert_eq!(first, Some(2), "a wish that was there before us is news");
        assert_eq!(told(&mut asking, None, &[], &[]), None, "unread, it stands");
    }

    #[test]
    fn reset_required_is_the_wish_for_a_reset_until_the_call_that_said_so_answers() {
        let mut gpu = RecoveryAction::default();
        let (sensor, counter) = ("power.draw", "pcie.recoveries");
        assert_eq!(told(&mut gpu, Some(0), &[sensor], &[]), None);
        assert_eq!(told(&mut gpu, Some(0), &[counter], &[counter]), Some(1));
        assert_eq!(told(&mut gpu, Some(0), &[sensor], &[]), None, "not asked");
        assert_eq!(told(&mut gpu, Some(0), &[counter, sensor], &[]), Some(0));
        // The driver has no field 230.
        let mut old = RecoveryAction::default();
        assert_eq!(told(&mut old, None, &[sensor], &[]), None);
        assert_eq!(told(&mut old, None, &[sensor], &[sensor]), Some(1));
        assert_eq!(told(&mut old, None, &[sensor], &[]), Some(0));
        // What the field says is more than that.
        let mut both = RecoveryAction::default();
        assert_eq!(told(&mut both, Some(2), &[sensor], &[sensor]), Some(2));
    }
}
