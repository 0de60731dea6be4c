//! A while that must pass before a condition begins, or before it ends, so that what flickers does not.
//!
//! ```text
//!  ok ─bad─▶ (begins) ─begin─▶ problem ─well─▶ (ends) ─end─▶ ok
//!   ◀──well──┘                    ◀──bad──┘
//! ```
//!
//! Since when it waits is in the state, and a wake comes back when the time is over; whatever else is judged
//! meanwhile puts the end off no further.

use device_policy_sdk::HostExt as _;

use crate::news::News;

/// The waits of one condition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) condition: &'static str,
    /// Its wake, and its place in the state.
    pub(crate) name: &'static str,
    pub(crate) begin_s: u64,
    pub(crate) end_s: u64,
}

/// What may be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    Problem,
    Ok,
    /// It stays as it is.
    Waits,
}

impl Wait {
    /// # Errors
    /// The host's state quota.
    pub(crate) fn judge(self, news: &mut News<'_>, is_bad: bool) -> Result<Now, String> {
        let said = if is_bad { Now::Problem } else { Now::Ok };
        let wait_s = if is_bad { self.begin_s } else { self.end_s };
        if is_bad == news.stands(self.condition) || wait_s == 0 {
            self.cancel(news);
            return Ok(said);
        }
        let (now, wait_ms) = (news.signal.at_ms, wait_s.saturating_mul(1000));
        // A clock that was set back begins the wait again, and so does a reset: links train after it.
        let since = self.since(news, is_bad).filter(|since| *since <= now);
        let since = since.filter(|_| !news.was_reset());
        let waited = since.map_or(0, |since| now.saturating_sub(since));
        if waited >= wait_ms {
            self.cancel(news);
            return Ok(said);
        }
        let is_due = news.woke(self.name);
        if since.is_none() || is_due {
            let since = since.unwrap_or(now);
            let key = self.key(news);
            news.host.put_display(&key, mark(is_bad, since))?;
            news.wake(self.name, wait_ms.saturating_sub(waited));
        }
        Ok(Now::Waits)
    }

    /// Whether it waits to begin.
    pub(crate) fn begins(self, news: &News<'_>) -> bool {
        self.since(news, true).is_some()
    }

    /// What it waits for can't be had just now, and may come back as it was, of which nobody is told: it looks again.
    pub(crate) fn put_off(self, news: &mut News<'_>) {
        if news.woke(self.name) {
            let again_s = self.begin_s.max(self.end_s);
            news.wake(self.name, again_s.saturating_mul(1000));
        }
    }

    fn key(self, news: &News<'_>) -> String {
        news.key(&format!("wait/{}", self.name))
    }

    fn since(self, news: &News<'_>, is_bad: bool) -> Option<u64> {
        let text: String = news.host.get_parsed(&self.key(news))?;
        text.strip_prefix(word(is_bad))?.parse().ok()
    }

    fn cancel(self, news: &mut News<'_>) {
        let key = self.key(news);
        if news.host.get(&key).is_some() {
            news.host.delete(&key);
            news.wake(self.name, 0);
        }
    }
}

fn word(is_bad: bool) -> &'static str {
    if is_bad {
        "bad-since-ms "
    } else {
        "well-since-ms "
    }
}

fn mark(is_bad: bool, since: u64) -> String {
    format!("{}{since}", word(is_bad))
}
