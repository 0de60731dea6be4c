//! Whether a GPU answers: one that gives an error to every call is not lost, and nobody knows how it is.

/// Batches in a row, of errors only, after which nobody knows how the GPU is. One may pass: a second later the next
/// is read.
const ERRORS_MAX: u32 = 2;

/// What a GPU answered lately.
#[derive(Debug, Default)]
pub(crate) struct Answering {
    /// Batches of errors only since the last value.
    errors: u32,
    /// It was told of when it gave errors only: what was told then is no find.
    found_mute: bool,
}

/// What a batch that brought values ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It answered before.
    Nothing,
    /// It gave errors only.
    Errors,
    /// So it did when it was found: nothing else is known of it.
    Muteness,
}

impl Answering {
    /// Errors only, to two batches at least.
    pub(crate) fn errs(&self) -> bool {
        self.errors >= ERRORS_MAX
    }

    /// A batch of errors only; whether with this one it [errs](Self::errs).
    pub(crate) fn erred(&mut self) -> bool {
        self.errors = self.errors.saturating_add(1).min(ERRORS_MAX + 1);
        self.errors == ERRORS_MAX
    }

    /// The same of a GPU that was just found: of it nothing else is known that could stand meanwhile.
    pub(crate) fn found_erring(&mut self) -> bool {
        self.found_mute = true;
        let is_news = !self.errs();
        self.errors = ERRORS_MAX;
        is_news
    }

    /// A batch with values.
    pub(crate) fn answered(&mut self) -> Ended {
        let errs = self.errs();
        self.errors = 0;
        match (std::mem::take(&mut self.found_mute), errs) {
            (true, _) => Ended::Muteness,
            (false, true) => Ended::Errors,
            (false, false) => Ended::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_of_errors_passes_and_two_are_told_once() {
        let mut gpu = Answering::default();
        assert_eq!(gpu.answered(), Ended::Nothing);
        assert!(!gpu.erred() && !gpu.errs());
        assert_eq!(gpu.answered(), Ended::Nothing);
        assert!(!gpu.erred() && gpu.erred() && gpu.errs());
        assert!(!gpu.erred() && !gpu.erred() && gpu.errs(), "told once");
        assert_eq!(gpu.answered(), Ended::Errors);
        assert_eq!(gpu.answered(), Ended::Nothing);
    }

    #[test]
    fn who_is_found_with_errors_is_to_be_found_again() {
        let mut gpu = Answering::default();
        assert!(gpu.found_erring() && gpu.errs());
        assert!(!gpu.erred() && !gpu.found_erring(), "told once");
        assert_eq!(gpu.answered(), Ended::Muteness);
        assert_eq!(gpu.answered(), Ended::Nothing);
    }
}
