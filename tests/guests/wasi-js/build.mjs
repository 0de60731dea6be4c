// node build.mjs WIT-FOLDER OUT.wasm: makes a component of policy.js. A script, since the command-line
// tool of the same makers mixes up its --wit options.

import { readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [witPath, out] = process.argv.slice(2);
const { component } = await componentize(await readFile(new URL("policy.js", import.meta.url), "utf8"), {
  witPath,
  worldName: "health-policy",
  // A policy has no use for fetch, and a host of policies has no wasi:http.
  disableFeatures: ["http", "fetch-event"],
});
await writeFile(out, component);
