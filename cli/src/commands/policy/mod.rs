//! `devicectl policy`: what judges faults, how it fares, and what to do about one that does not.

mod command;
mod describe;
mod list;

use std::io::Write;

use crate::args::{Args, PolicyCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// Digits of a digest that tell versions apart on a screen, and that the daemon takes for one.
const DIGEST_DIGITS: usize = 12;

pub(super) async fn run<W: Write>(
    args: &Args,
    command: &PolicyCommand,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    match command {
        PolicyCommand::List => list::run(args, &mut client, out).await,
        PolicyCommand::Describe { name } => describe::run(args, &mut client, name, out).await,
        PolicyCommand::Reload => command::reload(args, &mut client, out).await,
        PolicyCommand::Quarantine {
            name,
            reason,
            digest,
            yes,
        } => {
            let order = command::Order::Quarantine { reason, digest };
            command::run(args, &mut client, name, order, *yes, out).await
        }
        PolicyCommand::Release { name, digest, yes } => {
            let order = command::Order::Release { digest };
            command::run(args, &mut client, name, order, *yes, out).await
        }
        // Who names the digest has said yes to it.
        PolicyCommand::Accept { name, digest } => {
            let order = command::Order::Accept { digest };
            command::run(args, &mut client, name, order, true, out).await
        }
        PolicyCommand::Pause { name, reason, yes } => {
            let order = command::Order::Pause { reason };
            command::run(args, &mut client, name, order, *yes, out).await
        }
        PolicyCommand::Resume { name } => {
            command::run(args, &mut client, name, command::Order::Resume, true, out).await
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..DIGEST_DIGITS).unwrap_or(digest)
}

/// A version by its number and digest, as far as either is known.
fn version(version: &str, digest: &str) -> String {
    match (version, short(digest)) {
        ("", "") => "a version".to_owned(),
        ("", digest) => format!("version {digest}"),
        (version, "") => format!("version {version}"),
        (version, digest) => format!("version {version} ({digest})"),
    }
}

#[cfg(test)]
mod tests;
