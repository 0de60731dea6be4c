//! `devicectl log-level`: which lines the daemon's log takes, until told otherwise.

use std::io::{self, Write};

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use device_api_proto::native::{LogFilter, SetLogFilterRequest};
use serde::Serialize;

use crate::args::{Args, Format, LogLevelArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::text::escape;
use crate::words::rfc3339;

/// The word that is no level.
const RESET: &str = "reset";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LogView {
    filter: String,
    at_start: String,
    /// Whether an operator set it.
    is_set: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl From<&LogFilter> for LogView {
    fn from(log: &LogFilter) -> Self {
        Self {
            filter: log.filter.clone(),
            at_start: log.at_start.clone(),
            is_set: log.is_set,
            until: rfc3339(log.until.as_ref()),
        }
    }
}

pub(super) async fn run<W: Write>(
    args: &Args,
    asked: &LogLevelArgs,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let ttl = asked.ttl;
    if asked.level.as_deref() == Some(RESET) && ttl.is_some() {
        let why = "`reset` has no end; --ttl belongs to a level";
        Args::command()
            .error(ErrorKind::ArgumentConflict, why)
            .exit();
    }
    let mut client = Client::connect(&args.socket).await?;
    let log = match asked.level.as_deref() {
        None => client.daemon_status().await?.log.unwrap_or_default(),
        Some(RESET) => client.reset_log().await?,
        Some(filter) => {
            // What is too long for the wire is for the daemon to refuse.
            let longest = prost_types::Duration {
                seconds: i64::MAX,
                nanos: 0,
            };
            let request = SetLogFilterRequest {
                filter: filter.to_owned(),
                ttl: ttl.map(|ttl| prost_types::Duration::try_from(ttl).unwrap_or(longest)),
            };
            client.set_log(request).await?
        }
    };
    match args.output {
        Format::Json => out.json(&LogView::from(&log)),
        Format::Yaml => out.yaml(&LogView::from(&log), false),
        Format::Table | Format::Wide => out.print(|to, _| print(to, &log)),
    }
}

fn print(to: &mut dyn Write, log: &LogFilter) -> io::Result<()> {
    writeln!(to, "{:<12}{}", "Filter:", escape(&log.filter))?;
    if !log.is_set {
        return Ok(());
    }
    let until = rfc3339(log.until.as_ref());
    let until = until
        .unwrap_or_else(|| "`devicectl log-level reset`, or a restart of the daemon".to_owned());
    writeln!(to, "{:<12}{until}", "Until:")?;
    writeln!(to, "{:<12}{}", "Then:", escape(&log.at_start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_was_set_says_until_when_and_what_then() {
        let shown = |log: &LogFilter| {
            let mut out = Vec::new();
            print(&mut out, log).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut log = LogFilter {
            filter: "info\u{1b}[2J".to_owned(),
            at_start: "warn".to_owned(),
            ..LogFilter::default()
        };
        assert_eq!(shown(&log), "Filter:     info\\u{1b}[2J\n");
        log.is_set = true;
        assert_eq!(
            shown(&log),
            "Filter:     info\\u{1b}[2J\nUntil:      `devicectl log-level reset`, or a restart of the daemon\nThen:       warn\n"
        );
        log.until = Some(prost_types::Timestamp {
            seconds: 60,
            nanos: 0,
        });
        assert!(shown(&log).contains("Until:      1970-01-01T00:01:00Z\n"));
    }
}
