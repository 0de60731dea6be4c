//! Whether a cluster would take what is rendered: the schemas of `tests/fixtures/kubernetes`, and the words of
//! JSON Schema that they use. A word that is not known here is an error, not a word that is passed over.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use device_api_tests::tools::root;
use serde_json::{Map, Value, json};

use crate::helm::Chart;
use crate::matrix::MATRIX;

const CORE: [&str; 2] = ["1.30.json", "1.37.json"];
const OPERATOR: &str = "prometheus-operator.json";

/// Schemas of some kinds.
struct Schemas {
    kinds: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Schemas {
    fn read(file: &str) -> Result<Self> {
        let path = root()?.join("tests/fixtures/kubernetes").join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut all: Value = serde_json::from_str(&text)?;
        let mut take = |key: &str| {
            let map = all[key].as_object_mut().map(std::mem::take);
            map.with_context(|| format!("{file}: no {key}"))
        };
        Ok(Self {
            kinds: take("kinds")?,
            definitions: take("definitions")?,
        })
    }

    /// What a cluster would say against an object; `None` where it does not know the kind.
    fn objections(&self, object: &Value) -> Result<Option<Vec<String>>> {
        let word = |key: &str| {
            object[key]
                .as_str()
                .with_context(|| format!("no {key}: {object}"))
        };
        let kind = format!("{}/{}", word("apiVersion")?, word("kind")?);
        let Some(name) = self.kinds.get(&kind).and_then(Value::as_str) else {
            return Ok(None);
        };
        let mut objections = Vec::new();
        self.check(self.definition(name)?, object, &kind, &mut objections)?;
        Ok(Some(objections))
    }

    fn definition(&self, name: &str) -> Result<&Value> {
        self.definitions
            .get(name)
            .with_context(|| format!("no definition {name}"))
    }

    fn check(&self, schema: &Value, value: &Value, path: &str, to: &mut Vec<String>) -> Result<()> {
        let schema = schema
            .as_object()
            .with_context(|| format!("{path}: {schema}"))?;
        for (word, rule) in schema {
            match word.as_str() {
                "$ref" => {
                    let name = rule
                        .as_str()
                        .and_then(|rule| rule.strip_prefix("#/definitions/"));
                    self.check(
                        self.definition(name.context("a strange $ref")?)?,
                        value,
                        path,
                        to,
                    )?;
                }
                "required" => {
                    for field in rule
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                    {
                        if value
                            .as_object()
                            .is_some_and(|object| !object.contains_key(field))
                        {
                            to.push(format!("{path}: {field} is missing"));
                        }
                    }
                }
                "properties" => {
                    for (field, rule) in rule.as_object().into_iter().flatten() {
                        if let Some(value) = value.get(field) {
                            self.check(rule, value, &format!("{path}.{field}"), to)?;
                        }
                    }
                }
                "additionalProperties" => self.check_others(schema, rule, value, path, to)?,
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{path}[{at}]"), to)?;
                    }
                }
                "anyOf" | "oneOf" => self.check_some(rule, word == "oneOf", value, path, to)?,
                _ => to.extend(
                    objection(word, rule, value)?.map(|why| format!("{path}: {value} {why}")),
                ),
            }
        }
        Ok(())
    }

    fn check_others(
        &self,
        schema: &Map<String, Value>,
        rule: &Value,
        value: &Value,
        path: &str,
        to: &mut Vec<String>,
    ) -> Result<()> {
        let is_known = |field: &str| {
            schema
                .get("properties")
                .is_some_and(|known| known.get(field).is_some())
        };
        for (field, value) in value.as_object().into_iter().flatten() {
            if is_known(field) || rule == true {
                continue;
            }
            if rule == false {
                to.push(format!("{path}: there is no field {field}"));
            } else {
                self.check(rule, value, &format!("{path}.{field}"), to)?;
            }
        }
        Ok(())
    }

    fn check_some(
        &self,
        rules: &Value,
        exactly_one: bool,
        value: &Value,
        path: &str,
        to: &mut Vec<String>,
    ) -> Result<()> {
        let mut fits = 0;
        for rule in rules.as_array().into_iter().flatten() {
            let mut objections = Vec::new();
            self.check(rule, value, path, &mut objections)?;
            fits += usize::from(objections.is_empty());
        }
        if fits == 0 || (exactly_one && fits > 1) {
            to.push(format!("{path}: {value} is {fits} of {rules}"));
        }
        Ok(())
    }
}

/// What a word that looks at the value itself has against it.
fn objection(word: &str, rule: &Value, value: &Value) -> Result<Option<String>> {
    Ok(match word {
        "type" => {
            let types = rule
                .as_array()
                .map_or(std::slice::from_ref(rule), Vec::as_slice);
            let fits = types.iter().any(|name| is_of(value, name));
            (!fits).then(|| format!("is no {rule}"))
        }
        "enum" => {
            let fits = rule.as_array().is_some_and(|words| words.contains(value));
            (!fits).then(|| format!("is none of {rule}"))
        }
        "minLength" => {
            let length = value.as_str().map(|text| text.chars().count() as u64);
            let is_short = length.is_some() && length < rule.as_u64();
            is_short.then(|| "is too short".to_owned())
        }
        "minimum" => {
            let is_less = value
                .as_f64()
                .is_some_and(|value| Some(value) < rule.as_f64());
            is_less.then(|| format!("is less than {rule}"))
        }
        "pattern" => {
            let pattern = regex::Regex::new(rule.as_str().context("a strange pattern")?)?;
            let differs = value.as_str().is_some_and(|text| !pattern.is_match(text));
            differs.then(|| format!("does not match {rule}"))
        }
        _ => bail!("this test does not know the word {word}"),
    })
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

/// What the newest Kubernetes here would say against an object; `None` where it does not know the kind.
pub(crate) fn objections(object: &Value) -> Result<Option<Vec<String>>> {
    let newest = CORE.last().context("no schemas")?;
    Schemas::read(newest)?.objections(object)
}

#[test]
fn every_kind_of_every_case_is_as_kubernetes_has_it() -> Result<()> {
    let Some(chart) = Chart::find()? else {
        return Ok(());
    };
    let operator = Schemas::read(OPERATOR)?;
    let mut kinds = BTreeSet::new();
    for file in CORE {
        let core = Schemas::read(file)?;
        for (case, values) in MATRIX {
            for object in chart.rendered(values)?.objects {
                let objections = match core.objections(&object)? {
                    Some(objections) => Some(objections),
                    None => operator.objections(&object)?,
                };
                // Image volumes are younger than the oldest Kubernetes that the chart supports.
                let is_younger = file == "1.30.json" && *case == "policies of an image";
                let objections = objections.with_context(|| format!("no schema for {object}"))?;
                ensure!(
                    objections.is_empty() || is_younger,
                    "{case}, Kubernetes {file}:\n{}",
                    objections.join("\n")
                );
                kinds.insert(object["kind"].to_string());
            }
        }
    }
    ensure!(kinds.len() == 9, "the matrix shows every kind: {kinds:?}");
    Ok(())
}

#[test]
fn what_a_cluster_would_refuse_is_found() -> Result<()> {
    let check = |file: &str, object: Value, expected: &str| -> Result<()> {
        let objections = Schemas::read(file)?
            .objections(&object)?
            .context("a kind without schema")?;
        ensure!(
            objections == [expected],
            "{objections:?} is not {expected:?}"
        );
        Ok(())
    };
    for file in CORE {
        let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "spec": spec});
        check(
            file,
            service(json!({"clusterIp": "None"})),
            "v1/Service.spec: there is no field clusterIp",
        )?;
        let port = json!({"ports": [{"port": "x"}]});
        check(
            file,
            service(port),
            r#"v1/Service.spec.ports[0].port: "x" is no "integer""#,
        )?;
        check(
            file,
            service(json!({"ports": [{}]})),
            "v1/Service.spec.ports[0]: port is missing",
        )?;
    }
    let monitor = |interval: &str| {
        json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
            "spec": {"selector": {}, "endpoints": [{"interval": interval}]}})
    };
    let path = "monitoring.coreos.com/v1/ServiceMonitor.spec.endpoints[0].interval";
    let pattern = r#""^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$""#;
    check(
        OPERATOR,
        monitor("soon"),
        &format!("{path}: \"soon\" does not match {pattern}"),
    )
}
