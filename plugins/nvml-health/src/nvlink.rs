//! NVLinks that are down and were up. A link that this GPU was never seen to use may not be wired at all, so
//! which were up is remembered. After a driver was loaded, or the node booted, links take a while to train.

use device_policy_sdk::types::Severity;
use device_policy_sdk::{HostExt as _, Info, action, clear, kind, reading, subscribe};

use crate::news::{NOT_JUDGED, News};
use crate::wait::{Now, Wait};

pub(crate) const CONDITION: &str = "NvLink";
const WAKE: &str = "nvlink";
const KEYS: [&str; 1] = [reading::NVLINK_ACTIVE_MASK];

/// State: the links that were seen up, bit N for link N.
const SEEN_UP: &str = "nvlink/seen-up";

pub(crate) fn declare(info: Info) -> Info {
    info.owns(CONDITION, true, &["AllUp", "LinkDown", NOT_JUDGED])
        .readings(&KEYS)
        .subscribe(subscribe::reading(reading::NVLINK_ACTIVE_MASK, 0))
}

/// # Errors
/// The host's state quota.
pub(crate) fn judge(news: &mut News<'_>, settle_s: u64) -> Result<(), String> {
    if !news.woke(WAKE) && !news.is_about(&KEYS) {
        return Ok(());
    }
    let wait = Wait {
        condition: CONDITION,
        name: WAKE,
        begin_s: settle_s,
        end_s: settle_s,
    };
    let Some(up) = news.int(reading::NVLINK_ACTIVE_MASK) else {
        wait.put_off(news);
        return Ok(());
    };
    let key = news.key(SEEN_UP);
    let seen: i64 = news.host.get_parsed(&key).unwrap_or_default();
    if seen | up != seen {
        news.host.put_display(&key, seen | up)?;
    }
    let down = seen & !up;
    // One that was up just now went down; whoever was just found may be training still.
    let begin_s = if news.is(kind::GPU_FOUND) || wait.begins(news) {
        settle_s
    } else {
        0
    };
    match (Wait { begin_s, ..wait }).judge(news, down != 0)? {
        Now::Problem => {
            let message = format!(
                "{} down, and up before: check the link's cables and its peer; the kernel log may say more (XID 74, \
                 144 to 150).",
                links(down)
            );
            let problem = news
                .problem(CONDITION, Severity::Warning, "LinkDown")
                .action(action::CONTACT_SUPPORT)
                .message(message)
                .clears(&[
                    clear::POLICY,
                    clear::GPU_RESET,
                    clear::NODE_REBOOT,
                    clear::REPLACEMENT,
                    clear::OPERATOR,
                ]);
            news.say(problem);
        }
        Now::Ok => news.ok(CONDITION, "AllUp", "All NVLinks that were up are up."),
        Now::Waits => {}
    }
    Ok(())
}

/// `NVLink 3 is`, `NVLinks 3, 14 are`.
fn links(mask: i64) -> String {
    let numbers: Vec<String> = (0..i64::BITS)
        .filter(|link| mask >> link & 1 == 1)
        .map(|link| link.to_string())
        .collect();
    match numbers.len() {
        1 => format!("NVLink {} is", numbers.join("")),
        _ => format!("NVLinks {} are", numbers.join(", ")),
    }
}
