//! From core's words to what serde writes, and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::{BootId, BootTime, WallTime};
use device_api_core::ids::{
    DeviceUuid, IncidentId, ObjectKey, PciAddress, ResourceVersion, SignalSeq,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BadRecord;

/// A thing that has a form in the file.
pub(super) trait Stored: Sized {
    /// As serde writes it. Its default is what an old file is taken to say that lacks the field.
    type Form: Serialize + DeserializeOwned + Default;

    fn form(&self) -> Self::Form;

    fn of_form(form: Self::Form) -> Result<Self, BadRecord>;
}

/// Things that are their own form.
macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Stored for $type {
            type Form = Self;
            fn form(&self) -> Self { self.clone() }
            fn of_form(form: Self) -> Result<Self, BadRecord> { Ok(form) }
        }
    )*};
}
plain!(bool, u32, u64, i64, String);

/// Things that are one number under a name of its own.
macro_rules! number {
    ($($type:ident . $field:tt),*) => {$(
        impl Stored for $type {
            type Form = u64;
            fn form(&self) -> u64 { self.$field }
            fn of_form(form: u64) -> Result<Self, BadRecord> { Ok(Self { $field: form }) }
        }
    )*};
}
number!(
    WallTime.unix_ns,
    BootTime.ns,
    ResourceVersion.0,
    SignalSeq.0,
    IncidentId.0
);

/// A struct: its mirror has the same fields, each in its form. A field that core adds does not compile
/// until it is named here, kept or `left out` with what it then reads as.
macro_rules! record {
    ($type:ident as $form:ident { $($field:ident: $of:ty),* $(,)? } $(left out { $($lost:ident: $value:expr),* })?) => {
        #[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub(super) struct $form {
            $($field: <$of as super::stored::Stored>::Form,)*
        }
        impl super::stored::Stored for $type {
            type Form = $form;
            fn form(&self) -> $form {
                let Self { $($field,)* $($($lost: _,)*)? } = self;
                $form { $($field: super::stored::Stored::form($field),)* }
            }
            fn of_form(form: $form) -> Result<Self, super::BadRecord> {
                Ok(Self {
                    $($field: super::stored::Stored::of_form(form.$field)?,)*
                    $($($lost: $value,)*)?
                })
            }
        }
    };
}
pub(super) use record;

impl Stored for Arc<str> {
    type Form = String;
    fn form(&self) -> String {
        (**self).to_owned()
    }
    fn of_form(form: String) -> Result<Self, BadRecord> {
        Ok(form.into())
    }
}

impl Stored for DeviceUuid {
    type Form = String;
    fn form(&self) -> String {
        self.as_str().to_owned()
    }
    fn of_form(form: String) -> Result<Self, BadRecord> {
        Ok(Self::new(&form))
    }
}

impl Stored for BootId {
    type Form = String;
    fn form(&self) -> String {
        self.0.form()
    }
    fn of_form(form: String) -> Result<Self, BadRecord> {
        Ok(Self(form.into()))
    }
}

impl Stored for PciAddress {
    type Form = [u32; 4];
    fn form(&self) -> [u32; 4] {
        let Self {
            domain,
            bus,
            device,
            function,
        } = *self;
        [domain, bus.into(), device.into(), function.into()]
    }
    fn of_form([domain, bus, device, function]: [u32; 4]) -> Result<Self, BadRecord> {
        let byte = |number: u32| {
            u8::try_from(number)
                .map_err(|_| BadRecord(format!("{number} is no part of a PCI address")))
        };
        Ok(Self {
            domain,
            bus: byte(bus)?,
            device: byte(device)?,
            function: byte(function)?,
        })
    }
}

/// Seconds and nanoseconds: a [`Duration`] may be longer than any count of nanoseconds that fits.
impl Stored for Duration {
    type Form = (u64, u32);
    fn form(&self) -> (u64, u32) {
        (self.as_secs(), self.subsec_nanos())
    }
    fn of_form((seconds, nanos): (u64, u32)) -> Result<Self, BadRecord> {
        if nanos >= 1_000_000_000 {
            return Err(BadRecord(format!("{nanos} ns are more than a second")));
        }
        Ok(Self::new(seconds, nanos))
    }
}

impl Stored for ObjectKey {
    type Form = (String, String);
    fn form(&self) -> (String, String) {
        (self.namespace.form(), self.name.form())
    }
    fn of_form((namespace, name): (String, String)) -> Result<Self, BadRecord> {
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

/// Bytes as hexadecimal digits: twice the size where a JSON array takes four times.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Hex(String);

impl Hex {
    pub(super) fn of(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| {
            DIGITS
                .get(usize::from(nibble))
                .map_or('0', |d| char::from(*d))
        };
        let digits = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
        Self(digits.collect())
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, BadRecord> {
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|nibble| u8::try_from(nibble).ok())
                .ok_or_else(|| BadRecord("bytes are not in hexadecimal digits".to_owned()))
        };
        let (pairs, rest) = self.0.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(BadRecord("half a byte is missing".to_owned()));
        }
        pairs
            .iter()
            .map(|[high, low]| Ok(nibble(*high)? << 4 | nibble(*low)?))
            .collect()
    }
}

impl<T: Stored> Stored for Option<T> {
    type Form = Option<T::Form>;
    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }
    fn of_form(form: Self::Form) -> Result<Self, BadRecord> {
        form.map(T::of_form).transpose()
    }
}

impl<T: Stored> Stored for Vec<T> {
    type Form = Vec<T::Form>;
    fn form(&self) -> Self::Form {
        self.iter().map(T::form).collect()
    }
    fn of_form(form: Self::Form) -> Result<Self, BadRecord> {
        form.into_iter().map(T::of_form).collect()
    }
}

impl<T: Stored> Stored for Arc<[T]> {
    type Form = Vec<T::Form>;
    fn form(&self) -> Self::Form {
        self.iter().map(T::form).collect()
    }
    fn of_form(form: Self::Form) -> Result<Self, BadRecord> {
        form.into_iter().map(T::of_form).collect()
    }
}

impl<T: Stored> Stored for Arc<T> {
    type Form = T::Form;
    fn form(&self) -> Self::Form {
        (**self).form()
    }
    fn of_form(form: Self::Form) -> Result<Self, BadRecord> {
        T::of_form(form).map(Self::new)
    }
}

/// Pairs of a time and a name.
impl<A: Stored, B: Stored> Stored for (A, B) {
    type Form = (A::Form, B::Form);
    fn form(&self) -> Self::Form {
        (self.0.form(), self.1.form())
    }
    fn of_form((a, b): Self::Form) -> Result<Self, BadRecord> {
        Ok((A::of_form(a)?, B::of_form(b)?))
    }
}

impl Stored for BTreeMap<String, String> {
    type Form = Self;
    fn form(&self) -> Self {
        self.clone()
    }
    fn of_form(form: Self) -> Result<Self, BadRecord> {
        Ok(form)
    }
}

/// A policy's state.
impl Stored for BTreeMap<String, Vec<u8>> {
    type Form = BTreeMap<String, Hex>;
    fn form(&self) -> Self::Form {
        self.iter()
            .map(|(key, value)| (key.clone(), Hex::of(value)))
            .collect()
    }
    fn of_form(form: Self::Form) -> Result<Self, BadRecord> {
        form.into_iter()
            .map(|(key, value)| Ok((key, value.bytes()?)))
            .collect()
    }
}
