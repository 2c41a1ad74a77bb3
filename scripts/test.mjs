/**
 * `npm test`: install, build, types, lint, programs that tests start, every test.
 *
 * Invariant: the last line is `N passed, N failed` (and `, N skipped` when there are any), whatever happened; a
 * stage that fails counts as one failure. Needs neither a terminal nor standard input.
 */
import { availableParallelism } from "node:os";
import { bunPath } from "./bun.mjs";
import { buildHostBinary } from "./host-binary.mjs";
import { install } from "./install.mjs";
import { run } from "./paths.mjs";
import { checkLint, checkTypes, stage } from "./stages.mjs";
import { ensureTools } from "./test-tools.mjs";

/** A hang must become a failure while the six minutes of the whole run are not over. */
const TEST_TIMEOUT_MS = 285_000;
const WHOLE_RUN_MS = 345_000;

/** Test files run beside one another: much of their time is waiting for what they have started. */
const WORKERS = Math.min(4, Math.max(2, availableParallelism()));

const totals = { passed: 0, failed: 0, skipped: 0 };
const began = performance.now();

if (await must("install", install)) {
  let binary;
  const built = await must("build", async () => {
    binary = await buildHostBinary({ force: true });
  });
  await must("types", checkTypes);
  await must("lint", checkLint);
  // Best effort: what is still missing skips its tests, by name.
  if (built) await stage("test programs", () => ensureTools());
  if (built) await stage("tests", () => runTests(binary));
}

const { passed, failed, skipped } = totals;
console.log(`-- all: ${((performance.now() - began) / 1000).toFixed(1)} s`);
const line = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`;
// Exit only once the line is out: standard output may be a pipe that is being read slowly.
process.stdout.write(line, () => process.exit(failed === 0 ? 0 : 1));

/** A stage other than the tests: one failure if it fails. */
async function must(name, action) {
  const isOk = (await stage(name, action)) === 0;
  if (!isOk) totals.failed += 1;
  return isOk;
}

async function runTests(binary) {
  const timeoutMs = Math.min(TEST_TIMEOUT_MS, WHOLE_RUN_MS - (performance.now() - began));
  let output = "";
  const code = await run(
    bunPath(),
    ["test", `--parallel=${WORKERS}`, "--timeout", "60000", "./src", "./plugins", "./test"],
    {
      env: testEnv(binary),
      timeoutMs,
      onOutput: (text) => {
        output += text;
        process.stdout.write(text);
      },
    },
  );
  count(output, code);
  if (code === 124) console.log(`tests were stopped after ${Math.round(timeoutMs / 1000)} s`);
  return code;
}

/** Settings of the person who runs this must not reach the gateways under test. */
function testEnv(binary) {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(GATEHOUSE_|BUN_|NODE_OPTIONS$)/.test(name),
  );
  return { ...Object.fromEntries(kept), GATEHOUSE_BINARY: binary, NO_COLOR: "1" };
}

/** Reads the summary: ` 12 pass`, ` 1 fail`, ` 1 error`, ` 2 skip`, ` 1 todo`, each on its own line. */
function count(output, code) {
  const of = (word) => {
    const found = [...output.matchAll(new RegExp(`^ *(\\d+) ${word}s?$`, "gm"))].at(-1);
    return found === undefined ? 0 : Number(found[1]);
  };
  const failures = of("fail") + of("error");
  totals.passed += of("pass");
  totals.skipped += of("skip") + of("todo");
  totals.failed += code === 0 ? failures : Math.max(1, failures);
}
