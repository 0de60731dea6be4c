"""Keeps a view of the GPUs of this node, and prints every change of it.

What a device plugin or a scheduler does: list; watch from the list's version; when the stream breaks,
resume from the last version seen, so that nothing is missed and nothing comes twice; and list again when
the daemon can't go back that far (OUT_OF_RANGE).
"""

import argparse
import signal
import sys
import time

import grpc

from connection import CALL_TIMEOUT, connect, default_target
from nvidia.device.v1alpha1 import device_pb2, device_pb2_grpc

# Seconds between two watches that came to nothing. gRPC backs off by itself while it can't connect; this
# is for a daemon that answers, and refuses.
RETRY_MIN = 0.05
RETRY_MAX = 5.0

# What no repetition would mend.
FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Enough(Exception):
    """As many events as were asked for."""


class Consumer:
    def __init__(self, channel: grpc.Channel, events: int):
        self.client = device_pb2_grpc.GpuServiceStub(channel)
        # What is known: of each GPU the newest object.
        self.gpus: dict[tuple[str, str], device_pb2.Gpu] = {}
        # All changes up to this version are in gpus; 0: nothing is known yet.
        self.version = 0
        # Events still to be printed; negative: no end.
        self.left = events

    def run(self) -> None:
        """Follows the daemon over breaks, restarts and expiries."""
        delay = RETRY_MIN
        while True:
            before = self.version
            try:
                self.follow()
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
                if code in FINAL:
                    raise
                print(error.details(), file=sys.stderr)
            if code == grpc.StatusCode.OUT_OF_RANGE:
                # What happened meanwhile can't be told one by one any more: start from a new list.
                say(f"EXPIRED version={self.version}")
                self.version = 0
                continue
            say(f"ENDED {code.name}")
            if self.version != before:
                delay = RETRY_MIN
            time.sleep(delay)
            delay = min(2 * delay, RETRY_MAX)

    def follow(self) -> None:
        """Lists, where nothing is known yet, and watches until the stream ends."""
        if self.version == 0:
            self.list()
        say(f"WATCH after={self.version}")
        request = device_pb2.WatchGpusRequest(
            resource_version=self.version,
            # They move the version on while nothing changes, so that a resume finds it in the history.
            allow_bookmarks=True,
        )
        # A watch has no deadline. Cancelling frees the stream, whichever way this function ends.
        stream = self.client.WatchGpus(request, wait_for_ready=True)
        try:
            for event in stream:
                self.take(event)
        finally:
            stream.cancel()

    def list(self) -> None:
        """Replaces what is known by what is there."""
        listed = self.client.ListGpus(
            device_pb2.ListGpusRequest(), timeout=CALL_TIMEOUT, wait_for_ready=True
        )
        say(f"LIST version={listed.resource_version} gpus={len(listed.gpus)}")
        gone, self.gpus = self.gpus, {key(gpu): gpu for gpu in listed.gpus}
        for gpu in listed.gpus:
            show("GPU", gpu)
        for gpu in gone.keys() - self.gpus.keys():
            show("GONE", gone[gpu])
        self.version = listed.resource_version

    def take(self, event: device_pb2.WatchGpusResponse) -> None:
        """Applies one event. The version moves only after that: a resume repeats what was not applied."""
        gpu = event.gpu
        if event.type in (device_pb2.EVENT_TYPE_ADDED, device_pb2.EVENT_TYPE_MODIFIED):
            self.gpus[key(gpu)] = gpu
            show(device_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_"), gpu)
        elif event.type == device_pb2.EVENT_TYPE_DELETED:
            self.gpus.pop(key(gpu), None)
            show(device_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_"), gpu)
        elif event.type == device_pb2.EVENT_TYPE_BOOKMARK:
            say(f"BOOKMARK version={event.resource_version}")
        # A type that is not known here is skipped; its version counts.
        self.version = event.resource_version
        self.left -= 1
        if self.left == 0:
            raise Enough


def key(gpu: device_pb2.Gpu) -> tuple[str, str]:
    return gpu.namespace, gpu.name


def show(what: str, gpu: device_pb2.Gpu) -> None:
    """Prints one GPU on one line. Place work on HEALTHY; DEGRADED says in its action what is wrong;
    UNKNOWN is not healthy."""
    health = device_pb2.Health.Name(gpu.status.health).removeprefix("HEALTH_")
    say(
        f"{what} {gpu.name} version={gpu.resource_version} health={health}"
        f" action={gpu.status.recommended_action}"
    )


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--target", default=default_target(), help="where the daemon listens")
    arguments.add_argument("--events", type=int, default=-1, help="end after so many events")
    args = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with connect(args.target) as channel:
        try:
            Consumer(channel, args.events).run()
        except (Enough, KeyboardInterrupt):
            pass


if __name__ == "__main__":
    main()
