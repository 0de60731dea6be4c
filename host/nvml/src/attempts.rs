//! Who waits to hear what came of taking NVML up (`devicectl nvml attach`).

use device_api_core::ports::NvmlStatus;

use crate::answer::Answer;

/// Where it is told to: in use, or why not.
pub(crate) type AttachAnswer = Answer<NvmlStatus>;

/// An attempt tells those only who came before it began: what they have just put right, it has not seen else.
#[derive(Debug, Default)]
pub(crate) struct Attaching {
    under_way: Vec<AttachAnswer>,
    next: Vec<AttachAnswer>,
}

impl Attaching {
    /// Whoever no longer waits makes room: there are as many as calls under way, at the most.
    pub(crate) fn push(&mut self, answer: AttachAnswer) {
        self.under_way.retain(Answer::is_awaited);
        self.next.retain(Answer::is_awaited);
        self.next.push(answer);
    }

    /// Somebody waits for an attempt that has not begun.
    pub(crate) fn wants_another(&self) -> bool {
        !self.next.is_empty()
    }

    /// An attempt begins; whether somebody asked for it.
    pub(crate) fn begin(&mut self) -> bool {
        let is_asked_for = self.wants_another();
        self.under_way.append(&mut self.next);
        is_asked_for
    }

    /// The attempt has failed: whom to tell.
    pub(crate) fn take_failed(&mut self) -> Vec<AttachAnswer> {
        std::mem::take(&mut self.under_way)
    }

    /// What holds for whoever asked, whenever.
    pub(crate) fn take_all(&mut self) -> Vec<AttachAnswer> {
        self.begin();
        self.take_failed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer;

    #[test]
    fn n2_an_attempt_that_fails_is_told_to_those_who_came_before_it() {
        let mut attaching = Attaching::default();
        assert!(!attaching.begin());
        let (before, _waits) = answer::channel();
        attaching.push(before);
        assert!(attaching.wants_another() && attaching.begin());
        let (since, _waits) = answer::channel();
        attaching.push(since);
        assert_eq!(attaching.take_failed().len(), 1);
        assert!(attaching.wants_another(), "it is tried again for this one");
        assert_eq!(attaching.take_all().len(), 1);
        assert!(!attaching.wants_another());
    }

    #[test]
    fn who_gave_up_is_not_kept() {
        let mut attaching = Attaching::default();
        for _ in 0..3 {
            let (answer, gives_up) = answer::channel();
            drop(gives_up);
            attaching.push(answer);
        }
        assert_eq!(attaching.take_all().len(), 1, "the last");
    }
}
