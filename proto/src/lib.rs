//! The wire, generated: both dialects and their file descriptor set. Nothing is written by hand here;
//! the comments are those of the `.proto` files beside this crate.

/// The native dialect, `nvidia.device.v1alpha1`.
pub mod native {
    tonic::include_proto!("nvidia.device.v1alpha1");
}

/// The upstream dialect, `nvidia.nvsentinel.v1alpha1`.
pub mod upstream {
    tonic::include_proto!("nvidia.nvsentinel.v1alpha1");
}

/// Encoded `FileDescriptorSet` of both, with their imports and comments, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
