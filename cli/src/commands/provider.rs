//! `devicectl provider`: who writes conditions, and what to do about one that is gone for good.

use std::io::{self, Write};

use device_api_proto::native::Provider;
use serde::Serialize;

use super::ask;
use crate::args::{Args, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Cell};
use crate::text::escape;

const HEADS: [&str; 4] = ["NAME", "IDENTITY", "LEASE", "TYPES"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderList {
    providers: Vec<ProviderView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderView {
    name: String,
    identity: String,
    /// Absent where it has no lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_remaining_seconds: Option<i64>,
    condition_types: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Forgotten<'a> {
    name: &'a str,
    released_types: &'a [String],
}

impl From<&Provider> for ProviderView {
    fn from(provider: &Provider) -> Self {
        Self {
            name: provider.name.clone(),
            identity: provider.identity.clone(),
            lease_remaining_seconds: provider.lease_remaining.map(|lease| lease.seconds),
            condition_types: provider.condition_types.clone(),
        }
    }
}

pub(super) async fn list<W: Write>(args: &Args, out: &mut Output<W>) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let providers = client.providers().await?;
    let view = || ProviderList {
        providers: providers.iter().map(ProviderView::from).collect(),
    };
    match args.output {
        Format::Json => out.json(&view()),
        Format::Yaml => out.yaml(&view(), false),
        Format::Table | Format::Wide => out.print(|to, colour| {
            if providers.is_empty() {
                return writeln!(
                    to,
                    "No providers: nobody has written conditions over the API."
                );
            }
            let rows: Vec<_> = providers.iter().map(row).collect();
            table::write(to, &HEADS, &rows, colour)
        }),
    }
}

fn row(provider: &Provider) -> Vec<Cell> {
    let lease = provider.lease_remaining.as_ref();
    vec![
        Cell::new(&provider.name),
        Cell::new(&provider.identity),
        Cell::new(&lease.map_or_else(|| "none".to_owned(), |lease| table::span(lease.seconds))),
        Cell::new(&provider.condition_types.join(",")),
    ]
}

pub(super) async fn forget<W: Write>(
    args: &Args,
    name: &str,
    yes: bool,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let providers = client.providers().await?;
    let Some(provider) = providers.iter().find(|provider| provider.name == name) else {
        let names: Vec<_> = providers.iter().map(|one| one.name.as_str()).collect();
        let known = if names.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        let name = name.to_owned();
        return Err(Failure::NoProvider { name, known });
    };
    if !yes && !is_confirmed(provider).map_err(Failure::Output)? {
        let what = format!("provider {name:?} was not forgotten");
        return Err(Failure::Unconfirmed { what });
    }
    let released_types = client.forget_provider(name).await?;
    let view = Forgotten {
        name,
        released_types: &released_types,
    };
    match args.output {
        Format::Json => out.json(&view),
        Format::Yaml => out.yaml(&view, false),
        Format::Table | Format::Wide => out.print(|to, _| {
            writeln!(to, "Provider {} is forgotten.", escape(name))?;
            let none = released_types.is_empty();
            let types = if none {
                "none".to_owned()
            } else {
                released_types.join(", ")
            };
            writeln!(to, "Released types: {}", escape(&types))
        }),
    }
}

fn is_confirmed(provider: &Provider) -> io::Result<bool> {
    let lease = if provider.lease_remaining.is_some() {
        " It still holds a lease."
    } else {
        ""
    };
    ask(&format!(
        "Remove the conditions of provider {} ({}) from every GPU, and let others own their types?{lease}",
        provider.name,
        provider.condition_types.join(", "),
    ))
}
