//! The comments of the protos are the API's documentation (reflection serves them): all that can be
//! named has one.

use std::collections::BTreeSet;

use device_api_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Field numbers of descriptor.proto, of which paths into a file are made.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const FIELDS: i32 = 2;
const METHODS: i32 = 2;
const VALUES: i32 = 2;
const NESTED_ENUMS: i32 = 4;

type Named = Vec<(Vec<i32>, String)>;

fn messages(file: &FileDescriptorProto) -> Named {
    let of = |(at, message): (usize, &DescriptorProto)| {
        let path = vec![MESSAGES, index(at)];
        let mut named = vec![(path.clone(), message.name().to_owned())];
        for (at, field) in message.field.iter().enumerate() {
            let name = format!("{}.{}", message.name(), field.name());
            named.push(([&path[..], &[FIELDS, index(at)]].concat(), name));
        }
        for (at, nested) in message.enum_type.iter().enumerate() {
            named.extend(values(
                [&path[..], &[NESTED_ENUMS, index(at)]].concat(),
                nested,
            ));
        }
        named
    };
    file.message_type.iter().enumerate().flat_map(of).collect()
}

fn values(path: Vec<i32>, named: &EnumDescriptorProto) -> Named {
    let mut found = vec![(path.clone(), named.name().to_owned())];
    for (at, value) in named.value.iter().enumerate() {
        let path = [&path[..], &[VALUES, index(at)]].concat();
        found.push((path, value.name().to_owned()));
    }
    found
}

fn services(file: &FileDescriptorProto) -> Named {
    let mut named = Named::new();
    for (at, service) in file.service.iter().enumerate() {
        let path = vec![SERVICES, index(at)];
        named.push((path.clone(), service.name().to_owned()));
        for (at, method) in service.method.iter().enumerate() {
            let name = format!("{}.{}", service.name(), method.name());
            named.push(([&path[..], &[METHODS, index(at)]].concat(), name));
        }
    }
    named
}

fn index(at: usize) -> i32 {
    i32::try_from(at).expect("few")
}

#[test]
fn every_message_field_value_and_method_is_documented() {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
    let ours = files
        .file
        .iter()
        .filter(|file| file.package().starts_with("nvidia."));
    let mut seen = 0;
    for file in ours {
        let info = file.source_code_info.as_ref().expect("kept");
        let commented: BTreeSet<&[i32]> = info
            .location
            .iter()
            .filter(|location| !location.leading_comments().trim().is_empty())
            .map(|location| &*location.path)
            .collect();
        let enums = file.enum_type.iter().enumerate();
        let enums = enums.flat_map(|(at, named)| values(vec![ENUMS, index(at)], named));
        let named = messages(file)
            .into_iter()
            .chain(enums)
            .chain(services(file));
        for (path, name) in named {
            assert!(commented.contains(&*path), "{}: {name}", file.name());
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}
