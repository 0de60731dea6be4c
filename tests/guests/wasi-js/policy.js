// A policy in JavaScript: right about XID 79, and on XID 1001, which no GPU sends, it throws.

import { log } from "gpu:device-policy/host@0.1.0";

const OFF_THE_BUS = 79n;
const THROWS = 1001n;

/** What is said of a GPU that fell off the bus. */
function verdict(signal) {
  return {
    condition: "JavaScriptOffTheBus",
    state: "problem",
    severity: "fatal",
    reason: "Xid79",
    message: "the GPU has fallen off the bus",
    action: "RESTART_BM",
    clears: [{ on: "node-reboot", afterMs: 0n }],
    instance: signal.instance,
    cause: signal.seq,
    attrs: [],
  };
}

/**
 * What a function throws becomes the `err` of its result, and that is a string: an Error as it is would
 * make the bindings abort, and its message be lost.
 */
function aloud(judge) {
  return (...given) => {
    try {
      return judge(...given);
    } catch (error) {
      if (typeof error === "string") {
        throw error;
      }
      console.error(`${error}\n${error?.stack}`);
      throw `${error}`;
    }
  };
}

export const policy = {
  configure: aloud((config) => {
    if (config) {
      throw `this policy has nothing to configure, and got ${JSON.stringify(config)}: leave it empty`;
    }
    return {
      name: "wasi-js",
      version: "0.1.0",
      stateSchema: 1,
      subscriptions: [{ kind: "xid", where: [] }],
      owns: [{ condition: "JavaScriptOffTheBus", trueIsProblem: true, reasons: ["Xid79"] }],
      readings: [],
      attrs: [],
    };
  }),

  evaluate: aloud((device, signals) => {
    const verdicts = [];
    for (const signal of signals) {
      if (signal.code === OFF_THE_BUS) {
        console.log(`${device.uuid} fell off the bus`);
        verdicts.push(verdict(signal));
      } else if (signal.code === THROWS) {
        throw new RangeError("the guest met what it can't cope with");
      }
    }
    log("debug", `judged ${signals.length} signals`);
    return { verdicts, wakes: [], attrs: [] };
  }),
};
