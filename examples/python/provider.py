"""Writes the health that a site's own agent sees: one condition of one GPU, kept alive by heartbeats.

Needs to be allowed to write (root, or --allow-write-uid and --allow-write-gid of the daemon), and the
Unix socket: TCP is read-only.
"""

import argparse
import sys
import time

import grpc

from connection import CALL_TIMEOUT, connect, default_target
from nvidia.device.v1alpha1 import device_pb2, device_pb2_grpc

# Codes after which the same call may go through later. UNAVAILABLE leaves the outcome unknown; writing a
# condition again is harmless.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class Provider:
    def __init__(self, channel: grpc.Channel, name: str, lease_seconds: int):
        self.client = device_pb2_grpc.ProviderServiceStub(channel)
        self.name = name
        self.lease_seconds = lease_seconds
        self.lease_id = ""

    def register(self) -> None:
        """Takes a lease, or takes it up again after a restart: of this process or of the daemon."""
        request = device_pb2.RegisterProviderRequest(name=self.name)
        request.lease_duration.seconds = self.lease_seconds
        answer = self.client.RegisterProvider(request, timeout=CALL_TIMEOUT, wait_for_ready=True)
        self.lease_id = answer.lease_id
        say(f"REGISTERED {self.name} lease={answer.lease_duration.seconds}s")

    def write(self, gpu: str, condition: device_pb2.Condition) -> None:
        request = device_pb2.UpdateGpuConditionRequest(
            lease_id=self.lease_id, name=gpu, condition=condition
        )
        answer = self.client.UpdateGpuCondition(request, timeout=CALL_TIMEOUT, wait_for_ready=True)
        health = device_pb2.Health.Name(answer.status.health).removeprefix("HEALTH_")
        say(f"WROTE {condition.type} of {gpu} version={answer.resource_version} health={health}")

    def heartbeat(self) -> bool:
        """Renews the lease. True: the daemon asks for the conditions again, since it has lost them or no
        longer trusts them."""
        request = device_pb2.HeartbeatRequest(lease_id=self.lease_id)
        answer = self.client.Heartbeat(request, timeout=CALL_TIMEOUT, wait_for_ready=True)
        say("HEARTBEAT")
        return answer.rewrite_conditions


def run(provider: Provider, gpu: str, condition: device_pb2.Condition, beats: int) -> None:
    """Registers, writes, and beats three times as often as the lease needs. Whatever ends a lease, the
    way back is the same: register, and say again what is so."""
    # A lease that nothing was done under is not to blame for a refusal.
    is_registered, is_proven, to_write = False, False, True
    while True:
        try:
            if not is_registered:
                provider.register()
                is_registered, is_proven, to_write = True, False, True
            if to_write:
                provider.write(gpu, condition)
                is_proven, to_write = True, False
            if beats == 0:
                return
            time.sleep(provider.lease_seconds / 3)
            to_write = provider.heartbeat()
            beats -= 1
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            if error.code() == grpc.StatusCode.PERMISSION_DENIED and is_proven:
                # The lease has run out, or the daemon has forgotten it.
                is_registered = False
            elif error.code() not in PASSING:
                raise


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--target", default=default_target(), help="where the daemon listens")
    arguments.add_argument("--name", default="rack-agent", help="name, the same over restarts")
    arguments.add_argument("--gpu", required=True, help="name of the GPU")
    arguments.add_argument("--lease", type=int, default=30, help="lease in seconds")
    arguments.add_argument("--beats", type=int, default=-1, help="end after so many heartbeats")
    arguments.add_argument("--leaking", action="store_true", help="the sensor is wet")
    args = arguments.parse_args()
    condition = device_pb2.Condition(
        type="CoolantLeak",
        status=(
            device_pb2.CONDITION_STATUS_TRUE if args.leaking else device_pb2.CONDITION_STATUS_FALSE
        ),
        # Declared, never guessed: True is the bad news here.
        polarity=device_pb2.POLARITY_TRUE_IS_PROBLEM,
        severity=device_pb2.SEVERITY_WARNING,
        reason="SensorWet" if args.leaking else "SensorDry",
        message="The leak sensor under the cold plate is wet." if args.leaking else "",
        recommended_action="CONTACT_SUPPORT" if args.leaking else "NONE",
    )
    with connect(args.target) as channel:
        try:
            run(Provider(channel, args.name, args.lease), args.gpu, condition, args.beats)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
