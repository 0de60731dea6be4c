# syntax=docker/dockerfile:1.7
# The daemon and devicectl on a base that has the C library and nothing else: no shell, no package manager.
# x86_64 and aarch64; each is built on a machine of its own kind (.github/workflows/release.yml).
# Bases are named by tag, so that each release is on the newest patch of them; its provenance says by digest which they were.
#
#   docker build -t device-api-server .

ARG RUST=1.95.0
ARG DEBIAN=bookworm

FROM docker.io/library/rust:${RUST}-slim-${DEBIAN} AS build
ARG RUST
# Set by the builder; two platforms that are built side by side share no target folder.
ARG TARGETARCH
# The toolchain that is there, and not what rust-toolchain.toml would fetch for developers.
ENV RUSTUP_TOOLCHAIN=${RUST}
RUN rustup target add wasm32-unknown-unknown
WORKDIR /source
# Told by device_api_server_build_info.
ARG REVISION=unknown
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target,id=target-${RUST}-${TARGETARCH} \
    DEVICE_API_REVISION=${REVISION} cargo build --release --locked --package device-api-server --package devicectl \
    && install -D -t /out target/release/device-api-server target/release/devicectl

# The same Debian as above: the C library must not be older than the one that was linked against. NVML's library, which the
# runtime class brings into the pod, needs it too.
FROM gcr.io/distroless/cc-debian12:latest
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="device-api-server" \
      org.opencontainers.image.description="Health of a node's GPUs, judged by sandboxed WebAssembly policies and served over gRPC" \
      org.opencontainers.image.source="https://github.com/device-api/device-api-server" \
      org.opencontainers.image.documentation="https://github.com/device-api/device-api-server/blob/main/docs/install.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ /usr/bin/
# nobody: the chart's default too. It needs no home, and nothing in the image is its own.
USER 65534:65534
# Health and metrics; the API is on the socket, and on loopback.
EXPOSE 8081 9090
ENTRYPOINT ["/usr/bin/device-api-server"]
