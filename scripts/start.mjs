/**
 * `npm start`: install, build, then the demo.
 *
 * Invariant: from a fresh checkout one command ends at a running gateway, and Ctrl-C ends all of it.
 */
import { spawn } from "node:child_process";
import { buildHostBinary } from "./host-binary.mjs";
import { install } from "./install.mjs";
import { exitCodeOf } from "./paths.mjs";

try {
  await install();
  const binary = await buildHostBinary();
  const child = spawn(binary, ["demo", ...process.argv.slice(2)], { stdio: "inherit" });
  child.once("error", fail);
  child.once("close", (code, signal) => process.exit(exitCodeOf(code, signal)));
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  // On a terminal Ctrl-C reaches the whole group; handed on as well, it would be a second one to the demo.
  process.on("SIGINT", () => process.stdin.isTTY || child.kill("SIGINT"));
  if (process.env.npm_lifecycle_event !== undefined) endWithParent(child);
} catch (error) {
  fail(error);
}

/** npm runs this in a shell, and a signal to npm ends that shell without a word to us. */
function endWithParent(child) {
  const parent = process.ppid;
  setInterval(() => process.ppid !== parent && child.kill("SIGTERM"), 250).unref();
}

function fail(error) {
  console.error(`error: ${error.message}`);
  process.exit(1);
}
