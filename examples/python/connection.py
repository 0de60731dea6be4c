"""Connects to the daemon of this node."""

import os

import grpc

# Deadline of a unary call, in seconds: far above the 50 ms that a read waits for a decision.
CALL_TIMEOUT = 5.0

OPTIONS = [
    # Over a Unix socket this library's authority would be the socket's path, which is none in HTTP/2:
    # servers that check it reset the call (INTERNAL, "RST_STREAM … error code 1").
    ("grpc.default_authority", "localhost"),
    # gRPC's own back-off would grow to two minutes; the daemon of a node comes back within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How often a silent connection is tried, without a call too.
    ("grpc.keepalive_time_ms", 50_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # What the daemon sends at most; the default of 4 MiB is less.
    ("grpc.max_receive_message_length", 16 << 20),
]


def default_target() -> str:
    return os.environ.get("NVIDIA_DEVICE_API_TARGET") or "unix:///var/run/device-api/device.sock"


def connect(target: str) -> grpc.Channel:
    """A channel: it connects when the first call needs it, and again when the connection breaks."""
    return grpc.insecure_channel(target, options=OPTIONS)
