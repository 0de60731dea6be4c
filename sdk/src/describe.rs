//! What a policy says of itself.

use crate::types::{Attr, Owned, Subscription, Value};

/// The answer of `configure`, built.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "configure returns it"]
pub struct Info(crate::types::Info);

/// Begins with a name and a version; state schema 0, and neither signals nor conditions yet.
pub fn info(name: &str, version: &str) -> Info {
    Info(crate::types::Info {
        name: name.to_owned(),
        version: version.to_owned(),
        state_schema: 0,
        subscriptions: Vec::new(),
        owns: Vec::new(),
        readings: Vec::new(),
        attrs: Vec::new(),
    })
}

impl Info {
    /// Raise it when what is in the state changes its meaning: the new version then starts empty.
    pub fn state_schema(mut self, schema: u32) -> Self {
        self.0.state_schema = schema;
        self
    }

    pub fn subscribe(mut self, subscription: Subscription) -> Self {
        self.0.subscriptions.push(subscription);
        self
    }

    /// A condition type of this policy, its polarity, and every reason that it may give.
    pub fn owns(mut self, condition: &str, true_is_problem: bool, reasons: &[&str]) -> Self {
        let reasons = reasons.iter().map(|&reason| reason.to_owned()).collect();
        self.0.owns.push(Owned {
            condition: condition.to_owned(),
            true_is_problem,
            reasons,
        });
        self
    }

    /// Readings that the policy asks for.
    pub fn readings(mut self, keys: &[&str]) -> Self {
        self.0
            .readings
            .extend(keys.iter().map(|&key| key.to_owned()));
        self
    }
}

impl From<Info> for crate::types::Info {
    fn from(info: Info) -> Self {
        info.0
    }
}

/// Subscriptions.
pub mod subscribe {
    use super::{Attr, Subscription, Value};

    /// All signals of a kind.
    pub fn all(kind: &str) -> Subscription {
        Subscription {
            kind: kind.to_owned(),
            where_: Vec::new(),
        }
    }

    /// Signals of a kind with this code.
    pub fn code(kind: &str, code: u32) -> Subscription {
        let where_ = vec![Attr {
            key: "code".to_owned(),
            value: Value::Int(i64::from(code)),
        }];
        Subscription {
            kind: kind.to_owned(),
            where_,
        }
    }

    /// Changes of a reading that are greater than `deadband`; 0 means every change. A threshold within a deadband
    /// may be stepped over: docs/readings.md has `above`, `below` and `relative-to` for those.
    pub fn reading(key: &str, deadband: i64) -> Subscription {
        let mut where_ = vec![Attr {
            key: "key".to_owned(),
            value: Value::Text(key.to_owned()),
        }];
        if deadband != 0 {
            where_.push(Attr {
                key: "deadband".to_owned(),
                value: Value::Int(deadband),
            });
        }
        Subscription {
            kind: crate::kind::READING.to_owned(),
            where_,
        }
    }
}
