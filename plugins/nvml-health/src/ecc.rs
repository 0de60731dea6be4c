//! Uncorrectable ECC errors, by NVML's volatile counter and its ECC events. The counter falls only
//! with a GPU reset or a driver reload, so what it counts stands until then.
//!
//! A *contained* error (XID 94) counts here too, while the vendor leaves the GPU healthy; it is
//! `xid-policy`'s to judge. So counts that come with a 94 are taken as told. The two sources come
//! in any order: a problem that was raised just before its 94 is taken back.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{HostExt as _, Info, action, attr, clear, kind, reading, subscribe};

use crate::news::{News, plural};

pub(crate) const CONDITION: &str = "EccErrors";

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
        &["NoUncontainedErrors", "UncorrectableErrors"],
    )
    .readings(&[reading::ECC_VOLATILE_UNCORRECTED])
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
    if !news.is_about(&[reading::ECC_VOLATILE_UNCORRECTED]) {
        return Ok(());
    }
    let Some(count) = news.int(reading::ECC_VOLATILE_UNCORRECTED) else {
        return Ok(());
    };
    let key = of(news, COUNT);
    let told: i64 = news.host.get_parsed(&key).unwrap_or_default();
    if told != count {
        news.host.put_display(&key, count)?;
    }
    if count > told && !is_near(news, CONTAINED_AT) {
        return raise(news, Some(count));
    }
    // Fallen to zero: the reset that clears it. No more than before: as before.
    if count == 0 || !news.stands(CONDITION) {
        news.ok(
            CONDITION,
            "NoUncontainedErrors",
            "No uncorrectable error that was not contained.",
        );
    }
    Ok(())
}

fn contained(news: &mut News<'_>) -> Result<(), String> {
    let key = of(news, CONTAINED_AT);
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
        let key = of(news, RAISED_AT);
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
            "{what} since the driver was loaded: let what runs finish, then reset the GPU."
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
        .get_parsed::<u64>(&of(news, key))
        .is_some_and(|at_ms| news.signal.at_ms.abs_diff(at_ms) <= WINDOW_MS)
}

/// What drills have told is kept apart: an injected 94 contains no real error.
fn of(news: &News<'_>, key: &str) -> String {
    if news.signal.drill {
        format!("drill/{key}")
    } else {
        key.to_owned()
    }
}
