//! The wire, generated: both dialects and their file descriptor set; the comments are those of the `.proto`
//! files beside this crate. Written by hand are but [`Encoded`] and [`ServerCodec`].

mod codec;
mod encoded;

pub use codec::ServerCodec;
pub use encoded::Encoded;

/// The native dialect, `nvidia.device.v1alpha1`: its messages and clients.
pub mod native {
    tonic::include_proto!("nvidia.device.v1alpha1");

    /// Its services; what they answer holds each GPU [`Encoded`](crate::Encoded).
    pub mod server {
        include!(concat!(
            env!("OUT_DIR"),
            "/server/nvidia.device.v1alpha1.rs"
        ));
    }
}

/// The upstream dialect, `nvidia.nvsentinel.v1alpha1`: its messages and clients.
pub mod upstream {
    tonic::include_proto!("nvidia.nvsentinel.v1alpha1");

    /// Its service; what it answers holds each GPU [`Encoded`](crate::Encoded).
    pub mod server {
        include!(concat!(
            env!("OUT_DIR"),
            "/server/nvidia.nvsentinel.v1alpha1.rs"
        ));
    }
}

/// Encoded `FileDescriptorSet` of both, with their imports and comments, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
