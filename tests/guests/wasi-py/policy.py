"""A policy in Python: right about XID 79, and on XID 1001, which no GPU sends, it raises."""

from typing import List

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import host
from wit_world.imports.types import (
    Clear,
    Decision,
    Device,
    Info,
    Judgement,
    Owned,
    Severity,
    Signal,
    Subscription,
    Verdict,
)

OFF_THE_BUS = 79
RAISES = 1001


def verdict(signal: Signal) -> Verdict:
    """What is said of a GPU that fell off the bus."""
    return Verdict(
        condition="PythonOffTheBus",
        state=Judgement.PROBLEM,
        severity=Severity.FATAL,
        reason="Xid79",
        message="the GPU has fallen off the bus",
        action="RESTART_BM",
        clears=[Clear(on="node-reboot", after_ms=0)],
        instance=signal.instance,
        cause=signal.seq,
        attrs=[],
    )


class Policy(exports.Policy):
    def configure(self, config: str) -> Info:
        if config:
            raise Err(f"this policy has nothing to configure, and got {config!r}: leave it empty")
        return Info(
            name="wasi-py",
            version="0.1.0",
            state_schema=1,
            subscriptions=[Subscription(kind="xid", where=[])],
            owns=[Owned(condition="PythonOffTheBus", true_is_problem=True, reasons=["Xid79"])],
            readings=[],
            attrs=[],
        )

    def evaluate(self, device: Device, signals: List[Signal]) -> Decision:
        verdicts = []
        for signal in signals:
            if signal.code == OFF_THE_BUS:
                print(f"{device.uuid} fell off the bus")
                verdicts.append(verdict(signal))
            elif signal.code == RAISES:
                raise ValueError("the guest met what it can't cope with")
        host.log(host.Level.DEBUG, f"judged {len(signals)} signals")
        return Decision(verdicts=verdicts, wakes=[], attrs=[])
