//! Standing codes as bytes. Fixed fields, little-endian, then the summary with its length; the
//! state schema in `configure` is raised when this changes.

use device_policy_sdk::types::Severity;

use crate::book::Standing;
use crate::finding::{Action, Reason, Until};

const SEVERITIES: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Fatal];

pub(crate) fn encode(codes: &[Standing]) -> Vec<u8> {
    let mut out = Vec::new();
    for standing in codes {
        out.extend_from_slice(&standing.code.to_le_bytes());
        out.extend_from_slice(&standing.since_ms.to_le_bytes());
        out.extend_from_slice(&standing.order.to_le_bytes());
        out.push(u8::from(standing.drill));
        out.push(index(&SEVERITIES, standing.severity));
        out.push(index(&Action::ALL, standing.action));
        out.push(index(Reason::ALL, standing.reason));
        out.push(index(&Until::ALL, standing.until));
        let length = u16::try_from(standing.summary.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(
            standing
                .summary
                .as_bytes()
                .get(..usize::from(length))
                .unwrap_or_default(),
        );
    }
    out
}

/// `None`: these are no bytes of [`encode`].
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Standing>> {
    let mut codes = Vec::new();
    while !bytes.is_empty() {
        let code = u64::from_le_bytes(take(&mut bytes)?);
        let since_ms = u64::from_le_bytes(take(&mut bytes)?);
        let order = u32::from_le_bytes(take(&mut bytes)?);
        let [drill, severity, action, reason, until] = take(&mut bytes)?;
        let length = usize::from(u16::from_le_bytes(take(&mut bytes)?));
        let (text, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        codes.push(Standing {
            code,
            drill: drill != 0,
            since_ms,
            order,
            severity: *SEVERITIES.get(usize::from(severity))?,
            action: *Action::ALL.get(usize::from(action))?,
            reason: *Reason::ALL.get(usize::from(reason))?,
            until: *Until::ALL.get(usize::from(until))?,
            summary: String::from_utf8_lossy(text).into_owned(),
        });
    }
    Some(codes)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn index<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter()
        .position(|known| *known == one)
        .and_then(|at| u8::try_from(at).ok())
        .unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip_and_foreign_bytes_are_refused() {
        let standing = Standing {
            code: 79,
            drill: true,
            since_ms: 1_700_000_000_000,
            order: 3,
            severity: Severity::Fatal,
            action: Action::RestartBm,
            reason: Reason::NodeRebootRequired,
            until: Until::Reboot,
            summary: "XID 79: …".to_owned(),
        };
        let codes = vec![
            standing.clone(),
            Standing {
                code: 46,
                summary: String::new(),
                ..standing
            },
        ];
        let bytes = encode(&codes);
        assert_eq!(decode(&bytes), Some(codes));
        for length in 1..bytes.len() {
            if let Some(short) = decode(&bytes[..length]) {
                assert_eq!(short.len(), 1, "cut at {length}");
            }
        }
        assert_eq!(decode(&[0xff; 64]), None);
        assert_eq!(decode(&[]), Some(vec![]));
    }
}
