/**
 * The verb `doctor` with its options and examples.
 *
 * Invariant: like program.ts it imports a command only when that command is meant.
 */
import { type Command, InvalidArgumentError } from "commander";
import { EXIT, OperatorError } from "../errors.ts";
import type { CommonOptions } from "./context.ts";
import type { VerbTools } from "./nostr-verbs.ts";
import type { ProbeOptions } from "./probe/probe.ts";

/** As commander gives them. */
interface Given extends CommonOptions, Omit<ProbeOptions, "probe"> {
  readonly probe?: string;
}

const MOST_A_SECOND = 1000;

/** Adds the verb to the program. */
export function addDoctor(program: Command, { run, verb }: VerbTools): void {
  verb(
    program,
    "doctor",
    "look for what is wrong and say what mends it (exit 0 or 3)",
    "gatehouse doctor -c /etc/gatehouse/config.yaml\n  gatehouse doctor --probe https://llm.example.com --token-file token",
  )
    .option("--strict", "exit 3 for warnings, too")
    .option("--probe <url>", "attack this address from outside instead, and grade it")
    .option("--token-env <name>", "with --probe: variable with a token that may pass")
    .option("--token-file <file>", "with --probe: file with a token that may pass")
    .option("--token-header <name>", "with --probe: header of the token (default Authorization)")
    .option("--rate <number>", "with --probe: requests a second (default 20)", rate)
    .option("--write", "with --probe: also methods that may change something")
    .option("--yes", "with --probe: do not ask before attacking a public address")
    .action((options: Given) =>
      run(async (context) => {
        const { probe, ...rest } = options;
        if (probe !== undefined)
          return (await import("./probe/probe.ts")).probe(context, { ...rest, probe });
        refuseProbing(rest);
        return (await import("./doctor.ts")).doctor(context, rest);
      }),
    );
}

/** An option that would have no effect was meant for something. */
function refuseProbing(options: Omit<Given, "probe">): void {
  const { tokenEnv, tokenFile, tokenHeader, rate, write, yes } = options;
  if ([tokenEnv, tokenFile, tokenHeader, rate, write, yes].every((one) => one === undefined))
    return;
  throw new OperatorError(
    EXIT.usage,
    "--token-env, --token-file, --token-header, --rate, --write and --yes are for --probe",
    "Add --probe URL.",
  );
}

function rate(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= MOST_A_SECOND) return value;
  throw new InvalidArgumentError(`expected a number from 1 to ${MOST_A_SECOND}.`);
}
