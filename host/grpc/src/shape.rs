//! How many elements of repeated fields a message has, told from its bytes before it is decoded: an
//! element may be 2 bytes on the wire and hundreds in memory, so that what is decoded first and looked at
//! then is a hundred times the size that was let in.

use std::collections::HashMap;

use bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// How deep messages may lie in each other: prost's own bound.
const DEPTH_MAX: usize = 100;

/// The messages of descriptor sets, as far as counting needs them.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    messages: Vec<Shape>,
}

/// Which message of [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShapeId(usize);

/// The fields of one message that are repeated or messages, by their numbers.
#[derive(Debug, Default)]
struct Shape(Vec<(u32, Field)>);

#[derive(Clone, Copy, Debug)]
struct Field {
    repeated: bool,
    /// Numbers, of which each byte may be one.
    packed: bool,
    message: Option<ShapeId>,
}

/// Bytes that are no message; prost finds the same fault, at the same place.
#[derive(Debug)]
struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

impl Shapes {
    /// Adds the messages of `set`; gives their full names, as in `.package.Message`.
    pub(crate) fn add(&mut self, set: &FileDescriptorSet) -> HashMap<String, ShapeId> {
        let mut found = Vec::new();
        for file in &set.file {
            let scope = match file.package() {
                "" => String::new(),
                package => format!(".{package}"),
            };
            collect(&scope, &file.message_type, &mut found);
        }
        let first = self.messages.len();
        let named = found.iter().enumerate();
        let ids: HashMap<_, _> = named
            .map(|(at, (name, _))| (name.clone(), ShapeId(first + at)))
            .collect();
        let shapes = found.iter().map(|(_, message)| Shape::of(message, &ids));
        self.messages.extend(shapes);
        ids
    }

    /// The elements in `bytes`, a message of `shape`; of bytes that can't be decoded, those before the
    /// fault.
    pub(crate) fn elements(&self, shape: ShapeId, mut bytes: &[u8]) -> usize {
        let mut elements = 0;
        // What is wrong with them the decoder tells, having met no more than was counted.
        let _malformed = self.count(shape, &mut bytes, DEPTH_MAX, &mut elements);
        elements
    }

    fn count(
        &self,
        shape: ShapeId,
        bytes: &mut &[u8],
        depth: usize,
        elements: &mut usize,
    ) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let shape = self.messages.get(shape.0).ok_or(Malformed)?;
        while bytes.has_remaining() {
            let (number, wire) = decode_key(bytes)?;
            let known = shape.0.iter().find(|(known, _)| *known == number);
            let Some((_, field)) = known else {
                skip(wire, number, bytes)?;
                continue;
            };
            *elements += usize::from(field.repeated);
            if wire != WireType::LengthDelimited {
                skip(wire, number, bytes)?;
                continue;
            }
            let mut inner = delimited(bytes)?;
            if field.packed {
                *elements += inner.len();
            }
            if let Some(message) = field.message {
                self.count(message, &mut inner, depth, elements)?;
            }
        }
        Ok(())
    }
}

impl Shape {
    fn of(message: &DescriptorProto, ids: &HashMap<String, ShapeId>) -> Self {
        let fields = message.field.iter().filter_map(|field| {
            let repeated = field.label() == Label::Repeated;
            let is_message = field.r#type() == Type::Message;
            let packed =
                repeated && !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message);
            let message = is_message.then(|| ids.get(field.type_name()).copied());
            let message = message.flatten();
            let number = u32::try_from(field.number()).ok()?;
            let field = Field {
                repeated,
                packed,
                message,
            };
            (repeated || is_message).then_some((number, field))
        });
        Self(fields.collect())
    }
}

/// All messages of a scope, those within others too.
fn collect<'a>(
    scope: &str,
    messages: &'a [DescriptorProto],
    found: &mut Vec<(String, &'a DescriptorProto)>,
) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, found);
        found.push((name, message));
    }
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(decode_varint(bytes)?).map_err(|_| Malformed)?;
    let (inner, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(inner)
}

/// Skips the value of a field, a group with all that is in it.
fn skip(wire: WireType, number: u32, bytes: &mut &[u8]) -> Result<(), Malformed> {
    let mut groups = Vec::new();
    let (mut wire, mut number) = (wire, number);
    loop {
        match wire {
            WireType::Varint => drop(decode_varint(bytes)?),
            WireType::LengthDelimited => drop(delimited(bytes)?),
            WireType::ThirtyTwoBit => *bytes = bytes.get(4..).ok_or(Malformed)?,
            WireType::SixtyFourBit => *bytes = bytes.get(8..).ok_or(Malformed)?,
            WireType::StartGroup if groups.len() < DEPTH_MAX => groups.push(number),
            WireType::StartGroup => return Err(Malformed),
            WireType::EndGroup => {
                if groups.pop() != Some(number) {
                    return Err(Malformed);
                }
            }
        }
        if groups.is_empty() {
            return Ok(());
        }
        (number, wire) = decode_key(bytes)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_api_proto::native;
    use prost::Message;

    const STATUS: &str = ".nvidia.device.v1alpha1.UpdateGpuStatusRequest";
    const CREATE: &str = ".nvidia.device.v1alpha1.CreateGpuRequest";

    fn elements(name: &str, bytes: &[u8]) -> usize {
        let set = FileDescriptorSet::decode(device_api_proto::FILE_DESCRIPTOR_SET).expect("ours");
        let mut shapes = Shapes::default();
        let ids = shapes.add(&set);
        shapes.elements(ids[name], bytes)
    }

    #[test]
    fn what_is_repeated_counts_at_whatever_depth() {
        let condition = native::Condition {
            r#type: "T".to_owned(),
            evidence: vec![native::Evidence::default(); 3],
            clears: vec![native::Clear::default(); 2],
            owner: Some(native::Owner::default()),
            ..Default::default()
        };
        let request = native::UpdateGpuStatusRequest {
            name: "gpu-0".to_owned(),
            status: Some(native::GpuStatus {
                conditions: vec![condition; 10],
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(elements(STATUS, &request.encode_to_vec()), 10 * (1 + 3 + 2));
    }

    #[test]
    fn entries_of_a_map_count() {
        let labels = (0..7).map(|n| (n.to_string(), String::new())).collect();
        let spec = native::GpuSpec {
            labels,
            mig_instances: vec![native::MigInstance::default(); 5],
            ..Default::default()
        };
        let gpu = native::Gpu {
            spec: Some(spec),
            ..Default::default()
        };
        let request = native::CreateGpuRequest { gpu: Some(gpu) };
        assert_eq!(elements(CREATE, &request.encode_to_vec()), 12);
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_malformed_ends_it() {
        let status = [0x12, 2, 0x2a, 0];
        // Unknown: a number, a text, a group with a group and a text in it, 8 and 4 bytes.
        let unknown = [
            &[0xf8, 1, 5][..],
            &[0xfa, 1, 2, 0x2a, 0],
            &[0xfb, 1, 0x2b, 0x2c, 0x2a, 1, 0, 0xfc, 1],
            &[0xf9, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xfd, 1, 0, 0, 0, 0],
        ]
        .concat();
        let all = [&status[..], &unknown, &status].concat();
        assert_eq!(elements(STATUS, &all), 2);
        native::UpdateGpuStatusRequest::decode(&*all).expect("prost thinks so, too");
        for malformed in [
            &[0x12, 9, 0x2a][..],
            &[0xfb, 1],
            &[0xfb, 1, 0x2c],
            &[0xfc, 1],
            &[0x0e],
            &[0xff; 11],
        ] {
            let all = [&status[..], malformed, &status].concat();
            assert_eq!(elements(STATUS, &all), 1, "{malformed:?}");
            native::UpdateGpuStatusRequest::decode(&*all).expect_err("prost thinks so, too");
        }
        let deep = [0xfb, 1].repeat(1_000_000);
        assert_eq!(elements(STATUS, &deep), 0);
    }
}
