//! gRPC calls whose messages stay bytes: a client that decoded what it gets would spend most of the
//! time that is measured, and hide what the server costs.

use std::path::Path;

use anyhow::{Context as _, Result};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tokio::net::UnixStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// Larger than any list that is asked for: 512 GPUs are less than a megabyte.
const RECEIVE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes out, bytes in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client(tonic::client::Grpc<Channel>);

impl Client {
    /// # Errors
    /// Nobody listens on the socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is for HTTP/2's sake; the connector ignores it.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("connecting to {}", socket.display()))?;
        let grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX);
        Ok(Self(grpc))
    }

    /// # Errors
    /// The call's status.
    pub(crate) async fn unary(&mut self, path: &PathAndQuery, body: Bytes) -> Result<Bytes> {
        self.0.ready().await?;
        let answer = self
            .0
            .unary(Request::new(body), path.clone(), Raw)
            .await
            .with_context(|| format!("calling {path}"))?;
        Ok(answer.into_inner())
    }

    /// Returns when the server's headers are there.
    ///
    /// # Errors
    /// The call's status.
    pub(crate) async fn stream(
        &mut self,
        path: &PathAndQuery,
        body: Bytes,
    ) -> Result<Streaming<Bytes>> {
        self.0.ready().await?;
        let answer = self
            .0
            .server_streaming(Request::new(body), path.clone(), Raw)
            .await
            .with_context(|| format!("calling {path}"))?;
        Ok(answer.into_inner())
    }
}
