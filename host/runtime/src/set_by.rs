//! Where flags come from that nobody typed: what is wrong with several settings together is found when they are flags
//! already, and whoever wrote a file knows its keys.

/// Each flag that stands for a variable or a key of the file, and for which.
#[derive(Debug)]
pub(crate) struct Sources(Vec<(String, String)>);

impl Sources {
    pub(crate) fn new(each: impl Iterator<Item = (String, String)>) -> Self {
        Self(each.collect())
    }

    /// Where the flags that a text names come from, those that nobody typed; `None`: from nowhere else.
    pub(crate) fn set_by(&self, text: &str) -> Option<String> {
        let is_named = |flag: &str| {
            text.match_indices("--").any(|(at, _)| {
                let named = text.get(at + 2..).unwrap_or_default();
                let end = named.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
                named.get(..end.unwrap_or(named.len())) == Some(flag)
            })
        };
        let named = self.0.iter().filter(|(flag, _)| is_named(flag));
        let named: Vec<_> = named.map(|(_, origin)| &**origin).collect();
        (!named.is_empty()).then(|| named.join(", "))
    }
}
