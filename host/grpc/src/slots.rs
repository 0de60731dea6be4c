//! How many connections there may be, and whose; what each may hold is counted from here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_api_core::limits::Bounds;

use crate::budget::{Account, Budgets};
use crate::limits::{RESERVE, SHARE};
use crate::lines::Key;

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// There are as many as there may be, the reserve for writers apart.
    Full,
    /// This user has its share.
    ShareFull,
    /// It took too long to say that it speaks HTTP/2, or speaks something else.
    NoHello,
}

impl Turned {
    pub const ALL: [Self; 3] = [Self::Full, Self::ShareFull, Self::NoHello];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ShareFull => "share-full",
            Self::NoHello => "no-hello",
        }
    }
}

/// What is known of whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Reads,
    /// It may yet show a certificate of someone who may write.
    Unproven,
    Writes,
}

/// Connections that may still be made.
#[derive(Debug)]
pub(crate) struct Slots {
    bounds: Arc<Bounds>,
    /// What all hold by their connections.
    all: Arc<Budgets>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Each has a connection, so there are no more than connections.
    users: HashMap<Key, User>,
}

/// Whose connections count together.
#[derive(Debug)]
struct User {
    connections: usize,
    budgets: Arc<Budgets>,
}

/// One connection; given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    user: Key,
    budgets: Arc<Budgets>,
}

impl Slots {
    pub(crate) fn new(bounds: Arc<Bounds>) -> Arc<Self> {
        let (all, held) = (Arc::new(Budgets::in_all(&bounds)), Mutex::default());
        Arc::new(Self { bounds, all, held })
    }

    /// What one user may hold.
    pub(crate) fn share_max(&self) -> usize {
        (self.max() / SHARE).max(1)
    }

    pub(crate) fn max(&self) -> usize {
        self.bounds.connections
    }

    /// # Errors
    /// Why there is none.
    pub(crate) fn take(self: &Arc<Self>, user: Key, standing: Standing) -> Result<Slot, Turned> {
        let mut held = self.lock();
        self.fits(&held, &user, standing)?;
        let budgets = held.enter(&user, &self.bounds);
        drop(held);
        Ok(Slot {
            slots: self.clone(),
            user,
            budgets,
        })
    }

    fn fits(&self, held: &Held, user: &Key, standing: Standing) -> Result<(), Turned> {
        let of_user = held.users.get(user).map_or(0, |user| user.connections);
        let reserve = self.max() / RESERVE;
        let kept = match standing {
            Standing::Writes => 0,
            // The half for those who may turn out to write; a few of each network, so that one that
            // says nothing does not take it from the others.
            Standing::Unproven if of_user < (reserve / 4).max(1) => reserve / 2,
            Standing::Reads | Standing::Unproven => reserve,
        };
        if held.all + kept >= self.max() {
            return Err(Turned::Full);
        }
        if of_user >= self.share_max() {
            return Err(Turned::ShareFull);
        }
        Ok(())
    }

    /// Each critical section leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn enter(&mut self, user: &Key, bounds: &Bounds) -> Arc<Budgets> {
        let user = self.users.entry(user.clone()).or_insert_with(|| User {
            connections: 0,
            budgets: Arc::new(Budgets::of_user(bounds)),
        });
        user.connections += 1;
        self.all += 1;
        user.budgets.clone()
    }

    fn leave(&mut self, key: &Key) {
        self.all -= 1;
        if let Some(user) = self.users.get_mut(key) {
            user.connections -= 1;
            if user.connections == 0 {
                self.users.remove(key);
            }
        }
    }
}

impl Slot {
    /// Whoever has it has shown a certificate, and counts as whom that names from now on.
    ///
    /// # Errors
    /// There is no place for such a one.
    pub(crate) fn prove(mut self, user: Key, may_write: bool) -> Result<Self, Turned> {
        let standing = if may_write {
            Standing::Writes
        } else {
            Standing::Reads
        };
        let mut held = self.slots.lock();
        held.leave(&self.user);
        let fits = self.slots.fits(&held, &user, standing);
        let user = if fits.is_ok() {
            user
        } else {
            self.user.clone()
        };
        let budgets = held.enter(&user, &self.slots.bounds);
        drop(held);
        (self.user, self.budgets) = (user, budgets);
        fits.map(|()| self)
    }

    /// What the connection may hold.
    pub(crate) fn account(&self, may_write: bool) -> Arc<Account> {
        let (user, all) = (self.budgets.clone(), self.slots.all.clone());
        Account::new(&self.slots.bounds, user, all, may_write)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().leave(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Peer, Share};

    fn slots(connections: usize) -> Arc<Slots> {
        Slots::new(Arc::new(Bounds {
            connections,
            ..Bounds::default()
        }))
    }

    fn uid(uid: u32) -> Key {
        Key::Share(Share::Uid(uid))
    }

    fn network(addr: &str) -> Key {
        let addr = addr.parse().ok();
        Key::Share(Peer::Tcp { addr }.share())
    }

    fn named(name: &str) -> Key {
        Key::Certificate(name.into())
    }

    #[track_caller]
    fn taken(slots: &Arc<Slots>, user: Key, standing: Standing) -> Slot {
        slots.take(user, standing).expect("a slot")
    }

    #[test]
    fn one_user_takes_its_share_and_no_more() {
        let slots = slots(16);
        let mut held: Vec<_> = (0..8)
            .map(|_| taken(&slots, uid(7), Standing::Reads))
            .collect();
        let full = slots.take(uid(7), Standing::Writes).expect_err("its share");
        assert_eq!(full, Turned::ShareFull);
        held.extend((0..6).map(|n| taken(&slots, uid(100 + n), Standing::Reads)));
        let full = slots
            .take(uid(9), Standing::Reads)
            .expect_err("the reserve");
        assert_eq!(full, Turned::Full);
        held.extend([uid(9), uid(0)].map(|user| taken(&slots, user, Standing::Writes)));
        assert_eq!(
            slots.take(uid(1), Standing::Writes).err(),
            Some(Turned::Full)
        );
        drop(held);
        assert!(slots.lock().users.is_empty(), "nothing is kept of them");
        taken(&slots, uid(7), Standing::Reads);
    }

    #[test]
    fn the_fewest_there_may_be_are_of_use() {
        let slots = slots(4);
        let _held = [uid(7), uid(7)].map(|user| taken(&slots, user, Standing::Reads));
        taken(&slots, uid(8), Standing::Reads);
    }

    #[test]
    fn the_addresses_of_one_machine_or_one_network_are_one_user() {
        let slots = slots(16);
        let _held: Vec<_> = (1..=8)
            .map(|n| taken(&slots, network(&format!("127.0.0.{n}:1")), Standing::Reads))
            .collect();
        for addr in ["127.9.9.9:1", "[::1]:1"] {
            let full = slots.take(network(addr), Standing::Reads).err();
            assert_eq!(full, Some(Turned::ShareFull), "{addr}");
        }
        taken(&slots, uid(7), Standing::Reads);
    }

    #[test]
    fn who_proves_to_write_has_the_reserve_and_a_share_of_its_own() {
        let slots = slots(64);
        // All but the reserve of 8 is taken, half of all by the writer's own network.
        let addr = "10.0.0.7:1";
        let mut held: Vec<_> = (0..31)
            .map(|_| taken(&slots, network(addr), Standing::Reads))
            .collect();
        held.extend((0..25).map(|n| taken(&slots, uid(n), Standing::Reads)));
        let none = slots.take(network(addr), Standing::Unproven).err();
        assert_eq!(none, Some(Turned::Full), "a network that has so many waits");
        let others = ["10.0.0.8:1", "10.0.0.8:2", "10.0.0.9:1", "10.0.0.10:1"];
        let mut unproven: Vec<_> = others
            .iter()
            .map(|addr| taken(&slots, network(addr), Standing::Unproven))
            .collect();
        let full = slots.take(network("10.0.0.11:1"), Standing::Unproven);
        assert_eq!(full.err(), Some(Turned::Full), "the half is for such");
        taken(&slots, uid(0), Standing::Writes);
        // One proves to be a writer, one that it only reads.
        let proven = unproven.pop().expect("four").prove(named("cn:agent"), true);
        let reads = unproven
            .pop()
            .expect("four")
            .prove(named("cn:other"), false);
        assert_eq!(reads.err(), Some(Turned::Full));
        drop((held, unproven, proven));
        assert!(slots.lock().users.is_empty() && slots.lock().all == 0);
    }
}
