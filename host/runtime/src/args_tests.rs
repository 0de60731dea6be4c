use clap::builder::StyledStr;
use clap::{Arg, CommandFactory};

use super::*;

#[test]
fn the_table_of_flags_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn every_flag_has_a_heading_and_help() {
    for arg in Args::command().get_arguments() {
        assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
        assert!(
            arg.get_help_heading().is_some(),
            "{} has no heading",
            arg.get_id()
        );
    }
}

#[test]
fn defaults_are_those_that_the_rooms_have() {
    let args = Args::parse_from(["device-api-server"]);
    assert_eq!(
        args.nvml_driver_root,
        PathBuf::from(device_api_nvml::DRIVER_ROOT)
    );
    assert_eq!(args.nvml_poll_interval, device_api_nvml::POLL_INTERVAL);
    assert_eq!(args.nvml_fault_interval, device_api_nvml::FAULT_INTERVAL);
    assert_eq!(
        args.nvml_counter_interval,
        device_api_nvml::COUNTER_INTERVAL
    );
    assert_eq!(args.nvml_limit_interval, device_api_nvml::LIMIT_INTERVAL);
    assert_eq!(
        args.nvml_inventory_interval,
        device_api_nvml::INVENTORY_INTERVAL
    );
    assert_eq!(args.nvml_stale_after, device_api_nvml::STALE_AFTER);
}

/// Set to anything, the test writes the table instead of comparing it.
const WRITE: &str = "WRITE_DOCS";

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

/// What the page has around the table.
const BEGIN: &str = "<!-- The table is generated: `WRITE_DOCS=1 cargo test -p device-api-runtime configuration` writes it anew. -->\n";
const END: &str = "<!-- The end of what is generated. -->\n";

/// As it is typed: `--store durable|memory`.
fn flag(arg: &Arg) -> String {
    let long = arg.get_long().expect("every flag has a long name");
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    let name = arg.get_value_names().unwrap_or_default().join(" ");
    let values = arg.get_possible_values();
    let values: Vec<_> = values.iter().map(|value| value.get_name()).collect();
    let value = if !arg.get_action().takes_values() {
        String::new()
    } else if values.is_empty() || name == "BOOL" {
        format!(" {name}")
    } else {
        format!(" {}", values.join("\\|"))
    };
    format!("{}`--{long}{value}`", short.unwrap_or_default())
}

/// Without the mark of the last sentence, as the cells of a table are.
fn help(arg: &Arg) -> String {
    let text = |help: &StyledStr| {
        let text = help.to_string().replace("\n\n", " ").replace('\n', " ");
        text.replace('|', "\\|").trim_end_matches('.').to_owned()
    };
    // The long help of --limit is the page of limits.
    if arg.get_id() == "limit" {
        return format!(
            "{}: [limits.md](limits.md); in the file a mapping, `limits:`",
            text(arg.get_help().expect("help"))
        );
    }
    let help = arg.get_long_help().or(arg.get_help()).expect("help");
    text(help)
}

fn table() -> String {
    let command = Args::command();
    let mut text = "| flag | default | what |\n| --- | --- | --- |\n".to_owned();
    let mut heading = "Configuration";
    for arg in command.get_arguments() {
        let under = arg.get_help_heading().expect("a heading");
        if under != heading {
            text += &format!("| **{under}** | | |\n");
            heading = under;
        }
        let defaults = arg.get_default_values().iter();
        let defaults: Vec<_> = defaults
            .map(|value| value.to_string_lossy())
            .filter(|value| !value.is_empty())
            .map(|value| format!("`{value}`"))
            .collect();
        let default = if arg.get_id() == "verbose" {
            "`0`".to_owned()
        } else if defaults.is_empty() {
            "none".to_owned()
        } else {
            defaults.join(", ")
        };
        text += &format!("| {} | {default} | {} |\n", flag(arg), help(arg));
    }
    text
}

#[test]
fn the_table_of_the_page_of_configuration_is_that_of_the_flags() {
    let page = std::fs::read_to_string(DOCS).expect("docs/configuration.md");
    let (before, rest) = page.split_once(BEGIN).expect("where it begins");
    let (old, after) = rest.split_once(END).expect("where it ends");
    let new = table();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(DOCS, [before, BEGIN, &new, END, after].concat()).expect("written");
        return;
    }
    assert!(
        old == new,
        "docs/configuration.md is stale: {WRITE}=1 writes it anew"
    );
}
