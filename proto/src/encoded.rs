//! A message that was encoded before.

use std::sync::Arc;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

/// The bytes of a message, to stand where a message of that type stands: identical on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Encoded(Arc<[u8]>);

impl Encoded {
    /// Encodes a message.
    pub fn of(message: &impl Message) -> Self {
        Self(message.encode_to_vec().into())
    }
}

impl From<Arc<[u8]>> for Encoded {
    /// Takes what [`Message::encode_to_vec`] gave.
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Encoded {
    fn default() -> Self {
        Self([].into())
    }
}

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps the field as it came. (Nobody decodes what only the server sends, but a message that can't be
    /// read back would be a trap.)
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut bytes = self.0.to_vec();
        match wire_type {
            WireType::Varint => {
                let mut value = 0;
                encoding::uint64::merge(wire_type, &mut value, buf, ctx)?;
                encoding::encode_key(tag, wire_type, &mut bytes);
                encoding::encode_varint(value, &mut bytes);
            }
            WireType::SixtyFourBit => {
                let mut value = 0;
                encoding::fixed64::merge(wire_type, &mut value, buf, ctx)?;
                encoding::fixed64::encode(tag, &value, &mut bytes);
            }
            WireType::ThirtyTwoBit => {
                let mut value = 0;
                encoding::fixed32::merge(wire_type, &mut value, buf, ctx)?;
                encoding::fixed32::encode(tag, &value, &mut bytes);
            }
            WireType::LengthDelimited => {
                let mut value = Vec::new();
                encoding::bytes::merge(wire_type, &mut value, buf, ctx)?;
                encoding::bytes::encode(tag, &value, &mut bytes);
            }
            // Groups are of proto2; whoever sends one is understood without it.
            WireType::StartGroup | WireType::EndGroup => {
                encoding::skip_field(wire_type, tag, buf, ctx)?;
            }
        }
        self.0 = bytes.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{Condition, Gpu, GpuSpec, GpuStatus};

    #[test]
    fn an_encoded_message_survives_being_read_and_sent_on() {
        let gpu = Gpu {
            name: "gpu-0".to_owned(),
            resource_version: -1,
            spec: Some(GpuSpec {
                memory_bytes: Some(80 << 30),
                ..GpuSpec::default()
            }),
            status: Some(GpuStatus {
                conditions: vec![Condition::default(), Condition::default()],
                ..GpuStatus::default()
            }),
            ..Gpu::default()
        };
        let encoded = Encoded::of(&gpu);
        let read = Encoded::decode(encoded.as_ref()).expect("a message");
        assert_eq!(read, encoded);
        assert_eq!(Gpu::decode(read.encode_to_vec().as_slice()), Ok(gpu));
        assert!(Encoded::decode([0x0a_u8, 0x05, 0x01].as_slice()).is_err());
    }
}
