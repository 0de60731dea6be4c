//! A file of policies as what it is made of, before anything is known of its meaning: so that whatever is
//! wrong with it is said in our words, with its place, and not in those of a library.

use std::fmt;

use device_api_core::limits::{
    POLICIES_FILE_DEPTH_MAX as DEPTH_MAX, POLICIES_FILE_VALUES_MAX as VALUES_MAX,
};
use device_api_core::signal::printable;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::{NonFiniteFloatPolicy, Options, Spanned};

use super::Refusal;
use super::words::in_our_words;

/// Of a value in a message.
const SHOWN_BYTES_MAX: usize = 64;

pub(super) type Node = Spanned<Value>;

/// As YAML reads it where nothing is expected.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A whole one.
    Number(Number),
    Decimal(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Decimal(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = all.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = all.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

/// Reads it all, whatever it says.
pub(super) fn read(text: &str) -> Result<Node, Refusal> {
    let options: Options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: VALUES_MAX,
            max_depth: DEPTH_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: VALUES_MAX,
        },
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Refusal(in_our_words(&error, text)))
}

/// A value in its place.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    text: &'a str,
    /// `policies[0].limits`; empty: all of the file.
    path: String,
    node: &'a Node,
}

impl<'a> Field<'a> {
    pub(super) fn whole(text: &'a str, node: &'a Node) -> Self {
        Self {
            text,
            path: String::new(),
            node,
        }
    }

    /// From 1.
    pub(super) fn line(&self) -> u64 {
        self.node.referenced.line().max(1)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    pub(super) fn refused(&self, what: &str) -> Refusal {
        Refusal(match self.path.as_str() {
            "" => format!("line {}: {what}", self.line()),
            path => format!("line {}, {path}: {what}", self.line()),
        })
    }

    /// It is not `wanted`, a noun.
    fn is_no(&self, wanted: &str) -> Refusal {
        let shown = self.shown();
        let what = match &self.node.value {
            Value::Null => {
                format!("it is empty, and {wanted} is wanted: give it one, or leave the key out")
            }
            Value::Bool(_) => format!("{shown} is true or false, and {wanted} is wanted"),
            Value::Number(_) | Value::Decimal(_) => {
                format!("{shown} is a number, and {wanted} is wanted")
            }
            Value::Text(_) => format!("{shown} is text, and {wanted} is wanted"),
            Value::List(_) => format!("it is a list, and {wanted} is wanted"),
            Value::Map(_) => format!("it has keys of its own, and {wanted} is wanted"),
        };
        self.refused(&what)
    }

    /// A scalar as the file has it, fit for a message.
    pub(super) fn shown(&self) -> String {
        match &self.node.value {
            Value::Text(text) => format!("{:?}", printable(text, SHOWN_BYTES_MAX)),
            Value::Number(number) => self.written().unwrap_or_else(|| number.to_string()),
            Value::Decimal(number) => self.written().unwrap_or_else(|| number.to_string()),
            Value::Bool(value) => self.written().unwrap_or_else(|| value.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => String::new(),
        }
    }

    /// A plain scalar, letter by letter.
    fn written(&self) -> Option<String> {
        let span = self.node.defined.span();
        let at = usize::try_from(span.byte_offset()?).ok()?;
        let end = at.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        let written = self.text.get(at..end)?.trim();
        (!written.is_empty()).then(|| printable(written, SHOWN_BYTES_MAX))
    }

    /// Its keys, each of which is one of these.
    pub(super) fn entries(&self, known: &[&str]) -> Result<Vec<(&'a str, Self)>, Refusal> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.is_no(&format!("a map of {}", known.join(", "))));
        };
        let mut all = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.key(key)?;
            let field = self.at(&key.path, value);
            let Some(name) = key.name().filter(|name| known.contains(name)) else {
                return Err(key.refused(&format!(
                    "there is no such key: there are {}",
                    known.join(", ")
                )));
            };
            all.push((name, field));
        }
        Ok(all)
    }

    fn key(&self, key: &'a Node) -> Result<Field<'a>, Refusal> {
        let is_text = matches!(key.value, Value::Text(_));
        let plain = Field {
            text: self.text,
            path: self.path.clone(),
            node: key,
        };
        if !is_text {
            let what = match key.value {
                Value::List(_) | Value::Map(_) => {
                    "a key is a list or has keys of its own: a key is a word".to_owned()
                }
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Decimal(_)
                | Value::Text(_) => {
                    format!("the key {} is no text: put it in quotes", plain.shown())
                }
            };
            return Err(plain.refused(&what));
        }
        let name = plain.name().unwrap_or_default();
        let name = printable(name, SHOWN_BYTES_MAX);
        let path = match self.path.as_str() {
            "" => name,
            path => format!("{path}.{name}"),
        };
        Ok(Field { path, ..plain })
    }

    fn name(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Decimal(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }

    fn at(&self, path: &str, node: &'a Node) -> Self {
        Self {
            text: self.text,
            path: path.to_owned(),
            node,
        }
    }

    /// `wanted`: what it is a list of.
    pub(super) fn items(&self, wanted: &str) -> Result<Vec<Self>, Refusal> {
        let Value::List(items) = &self.node.value else {
            return Err(self.is_no(&format!("a list of {wanted}")));
        };
        let items = items.iter().enumerate();
        let items = items.map(|(at, node)| self.at(&format!("{}[{at}]", self.path), node));
        Ok(items.collect())
    }

    /// `wanted`: what text it is.
    pub(super) fn text(&self, wanted: &str) -> Result<&'a str, Refusal> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Bool(_) | Value::Number(_) | Value::Decimal(_) => Err(self
                .is_no(&format!("{wanted}, which is text"))
                .and(": put it in quotes")),
            Value::Null | Value::List(_) | Value::Map(_) => Err(self.is_no(wanted)),
        }
    }

    /// One of these.
    pub(super) fn word(&self, known: &[&str]) -> Result<&'a str, Refusal> {
        let wanted = || format!("one of {}", known.join(", "));
        match self.name() {
            Some(word) if known.contains(&word) => Ok(word),
            Some(_) => {
                Err(self.refused(&format!("{} is none of {}", self.shown(), known.join(", "))))
            }
            None => Err(self.is_no(&wanted())),
        }
    }

    /// A number or text, letter by letter.
    pub(super) fn scalar(&self, wanted: &str) -> Result<String, Refusal> {
        match &self.node.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(_) | Value::Decimal(_) => Ok(self.shown()),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                Err(self.is_no(wanted))
            }
        }
    }

    /// Anything, for somebody else.
    pub(super) fn json(&self) -> Result<serde_json::Value, Refusal> {
        Ok(match &self.node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Decimal(number) => match Number::from_f64(*number) {
                Some(number) => number.into(),
                None => {
                    let what = format!(
                        "{} is no number that JSON has: write another, or put it in quotes",
                        self.shown()
                    );
                    return Err(self.refused(&what));
                }
            },
            Value::Text(text) => text.as_str().into(),
            Value::List(_) => {
                let items = self.items("values")?.into_iter();
                items
                    .map(|item| item.json())
                    .collect::<Result<Vec<_>, _>>()?
                    .into()
            }
            Value::Map(entries) => {
                let mut all = serde_json::Map::new();
                for (key, value) in entries {
                    let key = self.key(key)?;
                    let name = key.name().unwrap_or_default().to_owned();
                    all.insert(name, self.at(&key.path, value).json()?);
                }
                all.into()
            }
        })
    }
}
