//! Which NVML calls run just now, and which of them hang (design N1).
//!
//! Every thread that makes calls has a slot here, and [`crate::call::called`] notes start and end of each call
//! in its thread's. What is past its bound is derived from that, by whoever asks: the watchdog, `/readyz`,
//! the poll thread that leaves a hung GPU alone.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device_api_core::ids::DeviceUuid;

/// Whom a call is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// NVML as a whole.
    #[default]
    Nvml,
    /// A GPU that has not told its UUID yet.
    Index(u32),
    Gpu(DeviceUuid),
    /// Two at once: where it hangs, either may be the reason.
    Pair(DeviceUuid, DeviceUuid),
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nvml => f.write_str("NVML"),
            Self::Index(index) => write!(f, "the GPU at index {index}"),
            Self::Gpu(uuid) => write!(f, "{uuid}"),
            Self::Pair(first, second) => write!(f, "{first} and {second}"),
        }
    }
}

/// What a thread of the source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Owns the library.
    Life,
    Poll,
    Events,
}

impl Role {
    /// The thread, as the system names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Life => "nvml",
            Self::Poll => "nvml-poll",
            Self::Events => "nvml-events",
        }
    }
}

/// A call that is past its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungCall {
    pub call: &'static str,
    /// The GPU it is about, where it is about one; the first of two.
    pub device: Option<DeviceUuid>,
    /// The other one, where it is about two.
    pub peer: Option<DeviceUuid>,
    /// NVML's index of it, where it had told no UUID yet.
    pub index: Option<u32>,
    /// Since the call.
    pub age: Duration,
}

impl HungCall {
    /// Whom it is about, in words; empty where it is about no GPU.
    pub fn whom(&self) -> String {
        match (&self.device, &self.peer, self.index) {
            (Some(device), Some(peer), _) => format!("{device} and {peer}"),
            (Some(device), None, _) => device.to_string(),
            (None, _, Some(index)) => format!("the GPU at index {index}"),
            (None, _, None) => String::new(),
        }
    }
}

impl std::fmt::Display for HungCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.call)?;
        let whom = self.whom();
        if !whom.is_empty() {
            write!(f, " on {whom}")?;
        }
        write!(f, " has hung for {:.1} s", self.age.as_secs_f64())
    }
}

#[derive(Clone, Copy, Debug)]
struct Running {
    call: &'static str,
    since: Instant,
    /// What the call itself is meant to take.
    allowed: Duration,
    /// The watchdog has told of it.
    told: bool,
}

#[derive(Debug, Default)]
struct State {
    asked: Asked,
    running: Option<Running>,
}

/// What one thread is at.
#[derive(Debug)]
struct Slot {
    role: Role,
    number: u64,
    state: Mutex<State>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    bound: Duration,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// Functions that this driver's library lacks, told once each.
    absent: Mutex<BTreeSet<&'static str>>,
}

thread_local! {
    static THREAD: RefCell<Option<(Arc<Watch>, Arc<Slot>)>> = const { RefCell::new(None) };
}

fn of_this_thread<T>(with: impl FnOnce(&Arc<Watch>, &Arc<Slot>) -> T) -> Option<T> {
    THREAD.with_borrow(|thread| thread.as_ref().map(|(watch, slot)| with(watch, slot)))
}

impl Watch {
    /// A call that takes longer than `bound` hangs.
    pub(crate) fn new(bound: Duration) -> Self {
        Self {
            bound,
            slots: Mutex::default(),
            absent: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the calls of this thread until the answer is dropped.
    pub(crate) fn enter(self: &Arc<Self>, role: Role, number: u64) -> Entered {
        let slot = Arc::new(Slot {
            role,
            number,
            state: Mutex::default(),
        });
        self.slots().push(Arc::clone(&slot));
        THREAD.set(Some((Arc::clone(self), slot)));
        Entered(())
    }

    /// The call that runs the longest just now, within its bound or not.
    pub(crate) fn longest(&self) -> Option<HungCall> {
        let slots = self.slots().clone();
        let running = slots.iter().filter_map(|slot| {
            let state = slot.lock();
            let running = state.running?;
            Some(hung(running, &state.asked))
        });
        running.max_by_key(|call| call.age)
    }

    /// The calls that are past their bound; `tell` marks them as told of, and gives the new ones only.
    fn past_bound(&self, tell: bool) -> Vec<(Role, u64, HungCall)> {
        let slots = self.slots().clone();
        let past = |slot: &Arc<Slot>| {
            let mut state = slot.lock();
            let asked = state.asked.clone();
            let running = state.running.as_mut()?;
            if running.since.elapsed() < self.bound + running.allowed || (tell && running.told) {
                return None;
            }
            running.told |= tell;
            Some((slot.role, slot.number, hung(*running, &asked)))
        };
        slots.iter().filter_map(past).collect()
    }

    /// The calls that hang, the longest first.
    pub(crate) fn hung(&self) -> Vec<HungCall> {
        let mut hung: Vec<HungCall> = self
            .past_bound(false)
            .into_iter()
            .map(|(.., hung)| hung)
            .collect();
        hung.sort_by_key(|hung| std::cmp::Reverse(hung.age));
        hung
    }

    /// The calls that hang and that nobody was told of yet.
    pub(crate) fn news(&self) -> Vec<HungCall> {
        let news = self.past_bound(true).into_iter();
        news.map(|(.., hung)| hung).collect()
    }

    /// The call that hangs on whom it is about. One about two GPUs hangs on neither: that is for their own to tell.
    pub(crate) fn hung_on(&self, asked: &Asked) -> Option<HungCall> {
        self.hung().into_iter().find(|hung| match asked {
            Asked::Nvml => hung.device.is_none() && hung.index.is_none(),
            Asked::Index(index) => hung.index == Some(*index),
            Asked::Gpu(uuid) => hung.device.as_ref() == Some(uuid) && hung.peer.is_none(),
            Asked::Pair(one, other) => {
                hung.device.as_ref() == Some(one) && hung.peer.as_ref() == Some(other)
            }
        })
    }

    /// Whether a call about two GPUs hangs: the next one might as well.
    pub(crate) fn pair_hangs(&self) -> bool {
        self.hung().iter().any(|hung| hung.peer.is_some())
    }

    /// The call in which a thread hangs.
    pub(crate) fn thread_hangs(&self, role: Role, number: u64) -> Option<HungCall> {
        let of_thread = |(its_role, its_number, _): &(Role, u64, HungCall)| {
            *its_role == role && *its_number == number
        };
        let hung = self.past_bound(false).into_iter().find(of_thread);
        hung.map(|(.., hung)| hung)
    }

    /// Threads of a role that hang.
    pub(crate) fn hung_threads(&self, role: Role) -> usize {
        let of_role = |(its_role, ..): &&(Role, u64, HungCall)| *its_role == role;
        self.past_bound(false).iter().filter(of_role).count()
    }

    /// Threads of sessions that hang; the owner of the library is none of them.
    pub(crate) fn hung_workers(&self) -> usize {
        let is_worker = |(role, ..): &&(Role, u64, HungCall)| *role != Role::Life;
        self.past_bound(false).iter().filter(is_worker).count()
    }

    /// Another driver was loaded: what its library lacks is news again.
    pub(crate) fn forget_absent(&self) {
        self.absent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn is_absent(&self, call: &'static str) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.insert(call) {
            tracing::info!(
                call,
                "this driver's NVML lacks a function: what it would tell is absent"
            );
        }
    }
}

fn hung(running: Running, asked: &Asked) -> HungCall {
    let (device, peer, index) = match asked {
        Asked::Nvml => (None, None, None),
        Asked::Index(index) => (None, None, Some(*index)),
        Asked::Gpu(uuid) => (Some(uuid.clone()), None, None),
        Asked::Pair(one, other) => (Some(one.clone()), Some(other.clone()), None),
    };
    HungCall {
        call: running.call,
        device,
        peer,
        index,
        age: running.since.elapsed(),
    }
}

/// The calls of a thread are watched for as long as it lives.
#[derive(Debug)]
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some((watch, slot)) = THREAD.take() {
            watch.slots().retain(|other| !Arc::ptr_eq(other, &slot));
        }
    }
}

/// Runs `ask`, whose calls are about `asked`.
pub(crate) fn asking<T>(asked: Asked, ask: impl FnOnce() -> T) -> T {
    let before = of_this_thread(|_, slot| std::mem::replace(&mut slot.lock().asked, asked))
        .unwrap_or_default();
    let answer = ask();
    of_this_thread(|_, slot| slot.lock().asked = before);
    answer
}

/// A library without a function that was asked for.
pub(crate) fn absent(call: &'static str) {
    of_this_thread(|watch, _| watch.is_absent(call));
}

/// Notes that this thread makes a call, until the answer is dropped.
pub(crate) fn begin(call: &'static str, allowed: Duration) -> Began {
    let running = Running {
        call,
        since: Instant::now(),
        allowed,
        told: false,
    };
    let outer = of_this_thread(|_, slot| slot.lock().running.replace(running)).flatten();
    Began(outer)
}

/// A call runs for as long as it lives.
#[derive(Debug)]
pub(crate) struct Began(Option<Running>);

impl Drop for Began {
    fn drop(&mut self) {
        // A call that is made of several takes as long as that of them which is under way.
        let outer = self.0.take().map(|outer| Running {
            since: Instant::now(),
            ..outer
        });
        let ended = of_this_thread(|_, slot| {
            let mut state = slot.lock();
            let ended = std::mem::replace(&mut state.running, outer);
            ended.map(|ended| (ended, state.asked.clone()))
        });
        if let Some((ended, asked)) = ended.flatten().filter(|(ended, _)| ended.told) {
            tracing::warn!(call = ended.call, %asked, after = ?ended.since.elapsed(), "an NVML call that hung came back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(bound: Duration) -> Arc<Watch> {
        Arc::new(Watch::new(bound))
    }

    #[test]
    fn n1_a_call_past_its_bound_is_told_once_with_whom_it_is_about() {
        let watch = watch(Duration::ZERO);
        let _entered = watch.enter(Role::Poll, 3);
        let gpu = DeviceUuid::new("GPU-1");
        assert_eq!(watch.hung(), []);
        asking(Asked::Gpu(gpu.clone()), || {
            let _began = begin("nvmlX", Duration::ZERO);
            let news = watch.news();
            assert_eq!(news.len(), 1);
            assert_eq!(
                (news[0].call, news[0].device.as_ref()),
                ("nvmlX", Some(&gpu))
            );
            assert_eq!(watch.news(), [], "once");
            assert_eq!(watch.hung().len(), 1, "and hangs on");
            assert!(watch.hung_on(&Asked::Gpu(gpu.clone())).is_some());
            assert!(watch.hung_on(&Asked::Index(0)).is_none());
            assert!(watch.thread_hangs(Role::Poll, 3).is_some());
            assert!(watch.thread_hangs(Role::Poll, 4).is_none());
            assert_eq!(watch.hung_workers(), 1);
        });
        assert_eq!(watch.hung(), []);
        asking(Asked::Index(2), || {
            let _began = begin("nvmlY", Duration::ZERO);
            assert!(watch.hung_on(&Asked::Index(2)).is_some());
        });
        assert!(!watch.pair_hangs());
        let pair = Asked::Pair(gpu.clone(), DeviceUuid::new("GPU-2"));
        asking(pair.clone(), || {
            let _began = begin("nvmlZ", Duration::ZERO);
            assert!(watch.pair_hangs() && watch.hung_on(&pair).is_some());
            assert!(
                watch.hung_on(&Asked::Gpu(gpu.clone())).is_none(),
                "it may be the other"
            );
        });
    }

    #[test]
    fn what_a_call_is_meant_to_take_is_not_held_against_it() {
        let watch = watch(Duration::ZERO);
        let _entered = watch.enter(Role::Events, 0);
        let _began = begin("nvmlEventSetWait_v2", Duration::from_hours(1));
        assert_eq!(watch.hung(), []);
    }

    #[test]
    fn n1_of_several_calls_in_one_each_has_the_whole_bound() {
        let watch = watch(Duration::ZERO);
        let _entered = watch.enter(Role::Poll, 0);
        let _all = begin("nvmlX of each link", Duration::ZERO);
        let one = begin("nvmlX", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(20));
        let returned = Instant::now();
        drop(one);
        let longest = watch.longest().unwrap();
        assert_eq!(longest.call, "nvmlX of each link");
        assert!(longest.age <= returned.elapsed(), "{longest}");
    }

    #[test]
    fn the_owner_of_the_library_is_no_worker_and_a_thread_that_left_hangs_nowhere() {
        let watch = watch(Duration::ZERO);
        let entered = watch.enter(Role::Life, 0);
        let began = begin("nvmlInit_v2", Duration::ZERO);
        assert_eq!((watch.hung().len(), watch.hung_workers()), (1, 0));
        drop((began, entered));
        assert_eq!(watch.hung(), []);
    }

    #[test]
    fn a_hung_call_is_told_in_words() {
        let mut hung = HungCall {
            call: "nvmlX",
            device: Some(DeviceUuid::new("GPU-1")),
            peer: None,
            index: None,
            age: Duration::from_millis(3250),
        };
        assert_eq!(hung.to_string(), "nvmlX on GPU-1 has hung for 3.2 s");
        hung.peer = Some(DeviceUuid::new("GPU-2"));
        let both = "nvmlX on GPU-1 and GPU-2 has hung for 3.2 s";
        assert_eq!(hung.to_string(), both);
        (hung.device, hung.peer) = (None, None);
        assert_eq!(hung.to_string(), "nvmlX has hung for 3.2 s");
        hung.index = Some(2);
        let at = "nvmlX on the GPU at index 2 has hung for 3.2 s";
        assert_eq!(hung.to_string(), at);
    }
}
