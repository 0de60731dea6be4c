//! What may be held at once, of each kind: by one connection, by all of one user, and in all. Past it
//! whoever asks is refused, so that a client that takes all it can hurts itself, and its own kin at most.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use device_api_core::limits::Bounds;

use crate::limits::{
    ANSWERS_IN_ALL, ASIDES_IN_ALL, ASIDES_PER_CONNECTION, BYTES_MIN, BYTES_SHARE, CALLS_IN_ALL,
    RECEIVING_IN_ALL, RECEIVING_PER_CONNECTION, RESERVE, SHARE,
};

/// Kinds of what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes of requests, from the first that came to the answer.
    Receiving,
    /// Bytes of answers that were not sent yet.
    Answering,
    /// Calls, watches apart.
    Calls,
    /// Watches of GPUs.
    Watches,
    /// Streams of health and reflection.
    Asides,
}

/// Whose is the level at which there was no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Connection,
    User,
    All,
}

/// What is left of one kind.
#[derive(Debug)]
struct Budget {
    left: AtomicUsize,
    /// Only for who may write.
    reserve: usize,
}

/// What is left of each kind at one level.
#[derive(Debug)]
pub(crate) struct Budgets {
    receiving: Budget,
    answering: Budget,
    calls: Budget,
    watches: Budget,
    asides: Budget,
}

/// What one connection holds, for itself, as one of its user's, and as one of all.
#[derive(Debug)]
pub(crate) struct Account {
    may_write: bool,
    connection: Budgets,
    user: Arc<Budgets>,
    all: Arc<Budgets>,
}

/// Something held; given back on drop.
pub(crate) struct Held {
    account: Arc<Account>,
    kind: Kind,
    amount: usize,
}

/// The most of each kind.
#[derive(Clone, Copy)]
struct Most {
    receiving: usize,
    answering: usize,
    calls: usize,
    watches: usize,
    asides: usize,
}

impl Most {
    fn in_all(bounds: &Bounds) -> Self {
        Self {
            receiving: RECEIVING_IN_ALL * bounds.receive_bytes.max(BYTES_MIN),
            answering: ANSWERS_IN_ALL * bounds.send_bytes.max(BYTES_MIN),
            calls: CALLS_IN_ALL,
            watches: bounds.watches,
            asides: ASIDES_IN_ALL,
        }
    }

    /// Of one user.
    fn of_user(bounds: &Bounds) -> Self {
        let all = Self::in_all(bounds);
        Self {
            receiving: all.receiving / BYTES_SHARE,
            answering: all.answering / BYTES_SHARE,
            calls: all.calls / SHARE,
            watches: (all.watches / SHARE).max(1),
            asides: all.asides / SHARE,
        }
    }

    fn of_connection(bounds: &Bounds) -> Self {
        Self {
            receiving: RECEIVING_PER_CONNECTION * bounds.receive_bytes.max(BYTES_MIN),
            answering: bounds.send_bytes.max(BYTES_MIN) + BYTES_MIN,
            // HTTP/2 bounds them.
            calls: CALLS_IN_ALL,
            watches: bounds.watches_per_connection,
            asides: ASIDES_PER_CONNECTION,
        }
    }
}

/// What one user may have of `watches`.
pub(crate) fn watches_of_user(bounds: &Bounds) -> usize {
    Most::of_user(bounds).watches
}

impl Budget {
    fn new(most: usize, reserve: usize) -> Self {
        let left = AtomicUsize::new(most);
        Self { left, reserve }
    }

    fn take(&self, amount: usize, may_write: bool) -> bool {
        let floor = if may_write { 0 } else { self.reserve };
        let less = |left: usize| left.checked_sub(amount).filter(|left| *left >= floor);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn give_back(&self, amount: usize) {
        self.left.fetch_add(amount, Ordering::Relaxed);
    }
}

impl Budgets {
    fn new(most: Most, reserve: impl Fn(usize) -> usize) -> Self {
        let budget = |most| Budget::new(most, reserve(most));
        Self {
            receiving: budget(most.receiving),
            answering: budget(most.answering),
            calls: budget(most.calls),
            watches: budget(most.watches),
            asides: budget(most.asides),
        }
    }

    /// Of all, a part of it kept for users who may write.
    pub(crate) fn in_all(bounds: &Bounds) -> Self {
        Self::new(Most::in_all(bounds), |most| most / RESERVE)
    }

    /// Of one user.
    pub(crate) fn of_user(bounds: &Bounds) -> Self {
        Self::new(Most::of_user(bounds), |_| 0)
    }

    fn of(&self, kind: Kind) -> &Budget {
        match kind {
            Kind::Receiving => &self.receiving,
            Kind::Answering => &self.answering,
            Kind::Calls => &self.calls,
            Kind::Watches => &self.watches,
            Kind::Asides => &self.asides,
        }
    }
}

impl Account {
    /// Of a new connection.
    pub(crate) fn new(
        bounds: &Bounds,
        user: Arc<Budgets>,
        all: Arc<Budgets>,
        may_write: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            may_write,
            connection: Budgets::new(Most::of_connection(bounds), |_| 0),
            user,
            all,
        })
    }

    /// # Errors
    /// Where there was not as much; nothing is taken then.
    pub(crate) fn hold(self: &Arc<Self>, kind: Kind, amount: usize) -> Result<Held, Level> {
        let mut held = Held {
            account: self.clone(),
            kind,
            amount: 0,
        };
        held.grow(amount)?;
        Ok(held)
    }

    fn levels(&self) -> [(Level, &Budgets); 3] {
        [
            (Level::Connection, &self.connection),
            (Level::User, &self.user),
            (Level::All, &self.all),
        ]
    }
}

impl Held {
    /// Takes more, or nothing where there is not as much: of the connection's first, so that a greedy
    /// client is told of its own limit.
    ///
    /// # Errors
    /// Where there was not as much.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Level> {
        let levels = self.account.levels();
        for (at, (level, budgets)) in levels.iter().enumerate() {
            if !budgets.of(self.kind).take(more, self.account.may_write) {
                for (_, taken) in levels.iter().take(at) {
                    taken.of(self.kind).give_back(more);
                }
                return Err(*level);
            }
        }
        self.amount += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (_, budgets) in self.account.levels() {
            budgets.of(self.kind).give_back(self.amount);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} {:?})", self.amount, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = [
        Kind::Receiving,
        Kind::Answering,
        Kind::Calls,
        Kind::Watches,
        Kind::Asides,
    ];

    struct Node {
        bounds: Bounds,
        all: Arc<Budgets>,
    }

    impl Node {
        fn new() -> Self {
            let bounds = Bounds::default();
            let all = Arc::new(Budgets::in_all(&bounds));
            Self { bounds, all }
        }

        fn user(&self) -> Arc<Budgets> {
            Arc::new(Budgets::of_user(&self.bounds))
        }

        fn connect(&self, user: &Arc<Budgets>, may_write: bool) -> Arc<Account> {
            Account::new(&self.bounds, user.clone(), self.all.clone(), may_write)
        }

        /// Takes all it gets on new connections of a user, by halves down to one.
        fn drain(&self, kind: Kind, user: &Arc<Budgets>, may_write: bool) -> (Vec<Held>, Level) {
            let mut held = Vec::new();
            loop {
                let account = self.connect(user, may_write);
                let mut amount = 1 << 40;
                while amount > 0 {
                    match account.hold(kind, amount) {
                        Ok(more) => held.push(more),
                        Err(_) => amount /= 2,
                    }
                }
                match account.hold(kind, 1) {
                    Err(Level::Connection) => {}
                    Err(level) => return (held, level),
                    Ok(_) => panic!("there was no more"),
                }
            }
        }
    }

    #[test]
    fn w4_one_user_leaves_most_to_the_others_of_each_kind() {
        for kind in KINDS {
            let node = Node::new();
            let (user, other) = (node.user(), node.user());
            let (held, level) = node.drain(kind, &user, true);
            assert_eq!(level, Level::User, "{kind:?}");
            node.connect(&other, false)
                .hold(kind, 1)
                .expect("another has its own");
            drop(held);
            node.connect(&user, false)
                .hold(kind, 1)
                .expect("all was given back");
        }
    }

    #[test]
    fn w4_all_who_only_read_leave_some_to_those_who_may_write() {
        for kind in KINDS {
            let node = Node::new();
            let mut held = Vec::new();
            loop {
                let (more, level) = node.drain(kind, &node.user(), false);
                held.extend(more);
                if level == Level::All {
                    break;
                }
            }
            let user = node.user();
            let refused = node.connect(&user, false).hold(kind, 1).err();
            assert_eq!(refused, Some(Level::All), "{kind:?}");
            node.connect(&user, true).hold(kind, 1).expect("kept");
        }
    }

    #[test]
    fn w4_a_refusal_takes_nothing() {
        let node = Node::new();
        let user = node.user();
        let (_held, _) = node.drain(Kind::Watches, &user, true);
        let account = node.connect(&user, true);
        for _ in 0..1_000 {
            account.hold(Kind::Watches, 1).expect_err("none is left");
        }
        let left = account.connection.watches.left.load(Ordering::Relaxed);
        assert_eq!(left, node.bounds.watches_per_connection);
    }
}
