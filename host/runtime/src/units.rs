//! Durations and sizes as people write them.

use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
}

impl Size {
    pub(crate) const fn mib(mib: u64) -> Self {
        Self { bytes: mib << 20 }
    }
}

/// A whole number with one unit: `10s`, `500ms`, `250us`, `2m`, `1h`. A number without a unit is
/// refused, since nobody can tell what was meant.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a whole number and one of us, ms, s, m, h, as in 10s or 500ms";
    let (number, unit) = split(text).ok_or(EXPECTED)?;
    let one_us: u64 = match unit {
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    let us = number.checked_mul(one_us).ok_or("too long")?;
    Ok(Duration::from_micros(us))
}

/// A whole number with one unit: `16MiB`, `512KiB`, `1GiB`, or of bytes without one.
pub(crate) fn parse_size(text: &str) -> Result<Size, String> {
    const EXPECTED: &str = "expected a whole number and one of KiB, MiB, GiB, as in 16MiB";
    let (number, unit) = split(text).ok_or(EXPECTED)?;
    let shift = match unit {
        "" => 0,
        "KiB" | "Ki" => 10,
        "MiB" | "Mi" => 20,
        "GiB" | "Gi" => 30,
        _ => return Err(EXPECTED.to_owned()),
    };
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    Ok(Size { bytes })
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_name_their_unit() {
        for (text, ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("0s", 0),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 s",
            "10sec",
            "99999999999999999999s",
            "9999999999999999h",
            "+1s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("16MiB", 16 << 20),
            ("512KiB", 512 << 10),
            ("1Gi", 1 << 30),
            ("4096", 4096),
        ] {
            assert_eq!(parse_size(text), Ok(Size { bytes }), "{text}");
        }
        for text in ["", "MiB", "16MB", "1.5MiB", "-1", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
