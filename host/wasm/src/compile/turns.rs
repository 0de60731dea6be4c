//! Who compiles when: what takes long can be put off for what may not.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

use super::seal;
use super::{Compiler, CompilerSettings};

/// Readable from [`Switch::throw`] until [`Switch::reset`].
pub(super) struct Switch(OwnedFd);

impl Switch {
    pub(super) fn new() -> io::Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    pub(super) fn throw(&self) {
        // It is full only where it was thrown some 2^64 times.
        let _ = io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn reset(&self) {
        // It fails where it was not thrown.
        let _ = io::read(&self.0, &mut [0_u8; 8]);
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Compiler {
    /// Ends the process that runs, or that is started next: that load is refused as
    /// [`LoadError::PutOff`](crate::LoadError::PutOff), and so is every one until [`Self::go_on`].
    pub fn put_off(&self) {
        self.shared.put_off.throw();
    }

    /// Takes a [`Self::put_off`] back.
    pub fn go_on(&self) {
        self.shared.put_off.reset();
    }

    #[must_use]
    pub fn settings(&self) -> &CompilerSettings {
        &self.shared.settings
    }

    /// Names the compiler as exactly as its code is bound to it: engine, version, settings, processor features.
    #[must_use]
    pub fn identity(&self) -> String {
        seal::hex(&self.shared.compatibility)
    }
}
