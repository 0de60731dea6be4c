//! How the server reads and writes messages.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What a stream of answers has room for at first, and when what was encoded is handed on, though more is
/// there: a watch whose client does not read holds so much, and there are thousands.
const BUFFER_BYTES: usize = 8 * 1024;
const YIELD_BYTES: usize = 16 * 1024;

/// Prost's encoding, as tonic's own codec does it, but for two things: bytes that are no message of the
/// type are the caller's fault (`InvalidArgument`, not `Internal`, which pages someone), and an answer
/// gets all its room at once: a list of GPUs is large, and all its lengths are known.
#[derive(Debug)]
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ServerCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Answers<T>;
    type Decoder = Requests<U>;

    fn encoder(&mut self) -> Answers<T> {
        Answers(PhantomData)
    }

    fn decoder(&mut self) -> Requests<U> {
        Requests(PhantomData)
    }
}

/// Writes answers.
#[derive(Debug)]
pub struct Answers<T>(PhantomData<T>);

impl<T: Message> Encoder for Answers<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode(buf)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Reads requests.
#[derive(Debug)]
pub struct Requests<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Requests<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf).map(Some).map_err(|error| {
            Status::invalid_argument(format!("the request is no message of its type: {error}"))
        })
    }
}
