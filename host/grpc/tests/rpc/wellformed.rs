//! Any bytes read as a message of a given type: what comes out is well-formed, whatever it says. Made from
//! the descriptors, so that a new field is in it without a line here.

use std::collections::HashMap;

use device_api_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Messages in messages: deeper than any of ours.
const DEPTH_MAX: usize = 6;
/// Elements of a repeated field: few, or more than there may be of anything.
const FEW: u8 = 3;
const MANY: usize = 70;

/// What strings say that something becomes of, and what is known to be wrong.
const WORDS: [&str; 26] = [
    "gpu-0",
    "gpu-1",
    "GPU-gpu-0",
    "default",
    "lease of fans",
    "fans",
    "FanBroken",
    "NVMLReady",
    "Ready",
    "True",
    "False",
    "NONE",
    "RESTART_BM",
    "0",
    "2",
    "-1",
    "18446744073709551616",
    "zone=a",
    "zone in (a, b",
    "status.health=Degraded",
    "status.health",
    "0000:1b:00.0",
    "../../etc/passwd",
    "a b",
    "\0\r\n\u{1b}[2J",
    "\u{202e}é",
];

/// What a field must say half of the time, so that requests get past their first checks.
const HINTS: [(&str, &str); 11] = [
    ("name", "gpu-0"),
    ("namespace", ""),
    ("resource_version", ""),
    ("uuid", "GPU-gpu-0"),
    ("lease_id", "lease of fans"),
    ("type", "FanBroken"),
    ("condition_type", "XidCriticalError"),
    ("status", "True"),
    ("recommended_action", "RESTART_BM"),
    ("label_selector", "zone=a"),
    ("digest", "bbbbbbbbbbbb"),
];

/// Numbers at which something changes.
const NUMBERS: [i64; 12] = [
    0,
    1,
    2,
    30,
    64,
    86_401,
    -1,
    999_999_999,
    1_000_000_000,
    i32::MAX as i64,
    i64::MAX,
    i64::MIN,
];

/// Bytes that decide. At their end all is zero.
#[derive(Debug)]
pub(crate) struct Source<'a>(pub(crate) &'a [u8]);

impl Source<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn string(&mut self) -> String {
        match self.byte() {
            choice @ 0..200 => WORDS[usize::from(choice) % WORDS.len()].to_owned(),
            choice @ 200..220 => "x".repeat(usize::from(choice - 200) * 300),
            choice => {
                let length = usize::from(choice - 220).min(self.0.len());
                let (text, rest) = self.0.split_at(length);
                self.0 = rest;
                String::from_utf8_lossy(text).into_owned()
            }
        }
    }

    fn number(&mut self) -> i64 {
        match self.byte() {
            choice @ 0..200 => NUMBERS[usize::from(choice) % NUMBERS.len()],
            _ => i64::from_le_bytes([(); 8].map(|()| self.byte())),
        }
    }
}

/// All message types by their full names.
#[derive(Debug)]
pub(crate) struct Types(HashMap<String, DescriptorProto>);

impl Types {
    pub(crate) fn new() -> Self {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
        let mut types = HashMap::new();
        for file in files.file {
            for message in file.message_type {
                let name = format!(
                    ".{}.{}",
                    file.package.as_deref().unwrap_or(""),
                    message.name()
                );
                for nested in &message.nested_type {
                    types.insert(format!("{name}.{}", nested.name()), nested.clone());
                }
                types.insert(name, message);
            }
        }
        Self(types)
    }

    pub(crate) fn message(&self, type_: &str, source: &mut Source) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.fill(type_, source, DEPTH_MAX, &mut bytes);
        bytes
    }

    fn fill(&self, type_: &str, source: &mut Source, depth: usize, bytes: &mut Vec<u8>) {
        for field in &self.0[type_].field {
            // Absent a quarter of the time.
            let choice = source.byte();
            let times = match (choice, field.label()) {
                (0..64, _) => 0,
                (255, Label::Repeated) => MANY,
                (_, Label::Repeated) => usize::from(choice % FEW),
                (_, Label::Optional | Label::Required) => 1,
            };
            for _ in 0..times {
                self.field(field, source, depth, bytes);
            }
        }
    }

    fn field(
        &self,
        field: &FieldDescriptorProto,
        source: &mut Source,
        depth: usize,
        bytes: &mut Vec<u8>,
    ) {
        let tag = field.number().unsigned_abs();
        match field.r#type() {
            Type::Message => {
                let mut inner = Vec::new();
                if depth > 0 {
                    self.fill(field.type_name(), source, depth - 1, &mut inner);
                }
                lengthy(tag, &inner, bytes);
            }
            Type::String | Type::Bytes => {
                let hint = HINTS.iter().find(|(name, _)| *name == field.name());
                let text = match hint.filter(|_| source.byte() < 128) {
                    Some((_, text)) => (*text).to_owned(),
                    None => source.string(),
                };
                lengthy(tag, text.as_bytes(), bytes);
            }
            Type::Int64
            | Type::Int32
            | Type::Uint64
            | Type::Uint32
            | Type::Sint64
            | Type::Sint32
            | Type::Bool => {
                encode_key(tag, WireType::Varint, bytes);
                encode_varint(source.number().cast_unsigned(), bytes);
            }
            Type::Enum => {
                encode_key(tag, WireType::Varint, bytes);
                encode_varint(u64::from(source.byte() % 6), bytes);
            }
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                encode_key(tag, WireType::SixtyFourBit, bytes);
                bytes.extend(source.number().to_le_bytes());
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                encode_key(tag, WireType::ThirtyTwoBit, bytes);
                bytes.extend([(); 4].map(|()| source.byte()));
            }
            // Of proto2.
            Type::Group => {}
        }
    }
}

fn lengthy(tag: u32, inner: &[u8], bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(inner.len() as u64, bytes);
    bytes.extend_from_slice(inner);
}
