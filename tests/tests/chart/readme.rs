//! The chart's README, its values and their schema tell of the same values.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::binary;
use device_api_tests::tools::root;
use serde_json::Value;

use crate::helm::folder;

/// Of Helm itself: the parent chart's values under one name, and under the other what turns a dependency on.
const HELMS: [&str; 2] = ["enabled", "global"];

struct Files {
    readme: String,
    values: Value,
    schema: Value,
}

fn files() -> Result<Files> {
    let read = |name: &str| Ok::<_, anyhow::Error>(fs::read_to_string(folder()?.join(name))?);
    Ok(Files {
        readme: read("README.md")?,
        values: serde_saphyr::from_str(&read("values.yaml")?)?,
        schema: serde_json::from_str(&read("values.schema.json")?)?,
    })
}

/// The defaults, by their paths. What is one value to its reader (a list, labels, settings) is one here.
fn defaults(
    value: &Value,
    schema: &Value,
    path: &str,
    to: &mut BTreeMap<String, Value>,
) -> Result<()> {
    let fields = value.as_object().filter(|fields| !fields.is_empty());
    let (Some(fields), Some(known)) = (fields, schema["properties"].as_object()) else {
        to.insert(path.to_owned(), value.clone());
        return Ok(());
    };
    for (field, value) in fields {
        let path = if path.is_empty() {
            field.clone()
        } else {
            format!("{path}.{field}")
        };
        let schema = known
            .get(field)
            .with_context(|| format!("the schema lacks {path}"))?;
        defaults(value, schema, &path, to)?;
    }
    for field in known.keys() {
        ensure!(
            fields.contains_key(field) || (path.is_empty() && HELMS.contains(&field.as_str())),
            "values.yaml lacks {path} {field}"
        );
    }
    Ok(())
}

/// The values by their paths, each with its default.
pub(crate) fn values() -> Result<BTreeMap<String, Value>> {
    let Files { values, schema, .. } = files()?;
    let mut found = BTreeMap::new();
    defaults(&values, &schema, "", &mut found)?;
    Ok(found)
}

/// `values.yaml`, as it is.
pub(crate) fn defaults_tree() -> Result<Value> {
    Ok(files()?.values)
}

/// Rows of the table of values: path and default.
fn rows(readme: &str) -> Result<BTreeMap<String, Value>> {
    let (_, table) = readme.split_once("\n## Values\n").context("no values")?;
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let mut words = line.split('`').skip(1).step_by(2);
        let (path, default) = words
            .next()
            .zip(words.next())
            .with_context(|| line.to_owned())?;
        let default = serde_saphyr::from_str(default).with_context(|| line.to_owned())?;
        ensure!(
            rows.insert(path.to_owned(), default).is_none(),
            "{path} has two rows"
        );
    }
    Ok(rows)
}

#[test]
fn the_readme_has_every_value_with_its_default_and_no_other() -> Result<()> {
    let expected = values()?;
    let rows = rows(&files()?.readme)?;
    for (path, default) in &expected {
        let row = rows
            .get(path)
            .with_context(|| format!("README.md lacks {path}"))?;
        ensure!(
            row == default,
            "{path}: README.md says {row}, values.yaml {default}"
        );
    }
    for path in rows.keys() {
        ensure!(
            expected.contains_key(path),
            "README.md has {path}, and values.yaml does not"
        );
    }
    Ok(())
}

#[test]
fn every_mapping_of_the_schema_refuses_what_it_does_not_name() -> Result<()> {
    fn check(schema: &Value, path: &str) -> Result<()> {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{field}");
            if schema["properties"].is_object() {
                ensure!(
                    schema["additionalProperties"] == false,
                    "{path} takes what it does not name"
                );
            }
            check(schema, &path)?;
        }
        Ok(())
    }
    let schema = files()?.schema;
    ensure!(
        schema["additionalProperties"] == false,
        "the top takes what it does not name"
    );
    for (name, definition) in schema["definitions"].as_object().into_iter().flatten() {
        ensure!(
            definition["properties"].is_null() || definition["additionalProperties"] == false,
            "{name} takes what it does not name"
        );
        check(definition, name)?;
    }
    check(&schema, "")
}

/// Fields by the last part of the name of a definition.
fn fields(file: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let path = root()?.join("tests/fixtures/kubernetes").join(file);
    let all: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let definitions = all["definitions"].as_object().context("no definitions")?;
    let keys = |of: &Value| {
        of.as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    let named = definitions.iter().map(|(name, definition)| {
        let name = name.rsplit('.').next().unwrap_or_default();
        (name.to_owned(), keys(&definition["properties"]))
    });
    Ok(named.collect())
}

/// Nothing that the oldest cluster takes is refused, and nothing taken that the newest does not know.
#[test]
fn parts_of_a_pod_are_those_of_kubernetes() -> Result<()> {
    let (oldest, newest) = (fields("1.30.json")?, fields("1.37.json")?);
    let schema = files()?.schema;
    let mut tried = 0;
    for (name, definition) in schema["definitions"].as_object().context("none")? {
        if !name.starts_with(char::is_uppercase) {
            continue;
        }
        let ours = definition["properties"].as_object().into_iter().flatten();
        let ours: BTreeSet<_> = ours.map(|(field, _)| field.clone()).collect();
        let (old, new) = oldest
            .get(name)
            .zip(newest.get(name))
            .with_context(|| format!("{name} is none of Kubernetes"))?;
        ensure!(
            old.is_subset(&ours) && ours.is_subset(new),
            "{name}: {ours:?}, in 1.30 {old:?}, in 1.37 {new:?}"
        );
        tried += 1;
    }
    ensure!(tried > 15, "{tried} definitions found");
    Ok(())
}

/// The daemon's settings, by its own word.
fn settings() -> Result<BTreeSet<String>> {
    let help = Command::new(binary("device-api-server")?)
        .arg("--help")
        .output()?;
    let help = String::from_utf8(help.stdout)?;
    let flags = help
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('-'));
    let names = flags.filter_map(|line| line.split_once("--").map(|(_, rest)| rest));
    let name = |rest: &str| {
        rest.split([' ', '[', '=', '.'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(names.map(name).collect())
}

#[test]
fn the_schema_names_every_setting_of_the_daemon() -> Result<()> {
    let mut expected = settings()?;
    for other in ["config", "check-config", "help", "version"] {
        ensure!(expected.remove(other), "--help lacks {other}: {expected:?}");
    }
    // The file's name of it, for a mapping.
    expected.insert("limits".to_owned());
    let schema = files()?.schema;
    let config = schema["properties"]["config"]["properties"]
        .as_object()
        .context("no settings")?;
    let named: BTreeSet<_> = config.keys().cloned().collect();
    let differ: Vec<_> = named.symmetric_difference(&expected).collect();
    ensure!(
        differ.is_empty(),
        "in the schema or the daemon, and not in both: {differ:?}"
    );

    let helpers = fs::read_to_string(folder()?.join("templates/_helpers.tpl"))?;
    let (_, said) = helpers
        .split_once("define \"device-api.saidElsewhere\" -}}\n")
        .context("no list")?;
    let (said, _) = said.split_once("{{- end }}").context("no end")?;
    for line in said.lines() {
        let setting = line.split(':').next().unwrap_or_default();
        ensure!(named.contains(setting), "{setting} is no setting");
    }
    Ok(())
}
