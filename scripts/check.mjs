/**
 * `npm run check`: types, lint and the import rules; what to run before every commit.
 *
 * Invariant: all of it runs even when an early part fails, so one run shows everything.
 */
import { bunPath } from "./bun.mjs";
import { install } from "./install.mjs";
import { run } from "./paths.mjs";
import { checkLint, checkTypes, stage } from "./stages.mjs";

const codes = [
  await stage("install", install),
  await stage("types", checkTypes),
  await stage("lint", checkLint),
  await stage("architecture", () => run(bunPath(), ["test", "./test/architecture.test.ts"])),
];
process.exit(codes.some((code) => code !== 0) ? 1 : 0);
