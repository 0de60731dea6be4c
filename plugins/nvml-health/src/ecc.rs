//! Uncorrectable ECC errors, by NVML's volatile counter and its ECC events. What it counts stands until the GPU
//! is reset. That the counter falls is no such thing: `nvidia-smi --reset-ecc-errors` and a loaded driver zero it
//! as well, and heal nothing. The host tells a reset by more than that (docs/clears.md).
//!
//! A *contained* error (XID 94) counts here too, while the vendor leaves the GPU healthy; it is
//! `xid-policy`'s to judge. So counts that come with a 94 are taken as told. The two sources come
//! in any order: a problem that was raised just before its 94 is taken back.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{HostExt as _, Info, action, attr, clear, kind, reading, subscribe};

use crate::news::{NOT_JUDGED, News, plural};

pub(crate) const CONDITION: &str = "EccErrors";
const KEYS: [&str; 1] = [reading::ECC_VOLATILE_UNCORRECTED];

/// How far apart a contained error's XID and its count may be seen: a few sampling periods.
const WINDOW_MS: u64 = 10_000;

const XID_CONTAINED: u32 = 94;

/// State: the count that was last judged or taken as told; when a problem was last raised; when a
/// contained error was last told of.
const COUNT: &str = "ecc/count";
const RAISED_AT: &str = "ecc/raised-at-ms";
const CONTAINED_AT: &str = "ecc/contained-at-ms";

pub(crate) fn declare(info: Info) -> Info {
    info.owns(
        CONDITION,
        true,
        &["NoUncontainedErrors", "UncorrectableErrors", NOT_JUDGED],
    )
    .readings(&KEYS)
    .subscribe(subscribe::all(kind::ECC))
    .subscribe(subscribe::code(kind::XID, XID_CONTAINED))
    .subscribe(subscribe::reading(reading::ECC_VOLATILE_UNCORRECTED, 0))
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>) -> Result<(), String> {
    if news.is(kind::XID) && news.signal.code == Some(u64::from(XID_CONTAINED)) {
        return contained(news);
    }
    if news.is(kind::ECC) {
        let uncorrected = attr::text(&news.signal.attrs, "error") == Some("uncorrected");
        return if uncorrected && !is_near(news, CONTAINED_AT) {
            raise(news, None)
        } else {
            Ok(())
        };
    }
    if !news.is_about(&KEYS) {
        return Ok(());
    }
    let Some(count) = news.int(reading::ECC_VOLATILE_UNCORRECTED) else {
        return Ok(());
    };
    let key = news.key(COUNT);
    let told: i64 = news.host.get_parsed(&key).unwrap_or_default();
    if told != count {
        news.host.put_display(&key, count)?;
    }
    // A counter that began anew has counted from zero.
    let new = if count < told { count } else { count - told };
    if new > 0 && !is_near(news, CONTAINED_AT) {
        return raise(news, Some(count));
    }
    if !news.stands(CONDITION) {
        news.ok(
            CONDITION,
            "NoUncontainedErrors",
            "No uncorrectable error that was not contained.",
        );
    }
    Ok(())
}

fn contained(news: &mut News<'_>) -> Result<(), String> {
    let key = news.key(CONTAINED_AT);
    news.host.put_display(&key, news.signal.at_ms)?;
    if news.stands(CONDITION) && is_near(news, RAISED_AT) {
        news.ok(
            CONDITION,
            "NoUncontainedErrors",
            "The uncorrectable error was contained (XID 94).",
        );
    }
    Ok(())
}

/// `count`: as the counter has it, where the counter told.
fn raise(news: &mut News<'_>, count: Option<i64>) -> Result<(), String> {
    if !news.stands(CONDITION) {
        let key = news.key(RAISED_AT);
        news.host.put_display(&key, news.signal.at_ms)?;
    }
    let what = match count {
        Some(count) => plural(count, "uncorrectable ECC error", "uncorrectable ECC errors"),
        None => "An uncorrectable ECC error".to_owned(),
    };
    let ecc = news
        .problem(CONDITION, Severity::Warning, "UncorrectableErrors")
        .action(action::COMPONENT_RESET)
        .message(format!(
            "{what} since the counter began: let what runs finish, then reset the GPU."
        ))
        .clears(&[
            clear::GPU_RESET,
            clear::NODE_REBOOT,
            clear::REPLACEMENT,
            clear::OPERATOR,
        ]);
    news.say(ecc);
    Ok(())
}

fn is_near(news: &News<'_>, key: &str) -> bool {
    news.host
        .get_parsed::<u64>(&news.key(key))
        .is_some_and(|at_ms| news.signal.at_ms.abs_diff(at_ms) <= WINDOW_MS)
}
