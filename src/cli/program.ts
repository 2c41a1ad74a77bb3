/**
 * The command line: every verb, its options, its help with an example.
 *
 * Invariant: nothing is imported before it is known which verb is meant, so `version` and `help` cost nothing; and
 * every verb takes `-c`, `--json` and `--no-color`.
 */
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { EXIT, type ExitCode } from "../errors.ts";
import { addBackup } from "./backup-verbs.ts";
import type { Action, CliContext, CommonOptions } from "./context.ts";
import { addDoctor } from "./doctor-verb.ts";
import { addEmit } from "./emit-verb.ts";
import { addCompletion, programHelp } from "./help-verbs.ts";
import { addInit } from "./init-verbs.ts";
import { refuseKeys } from "./key-args.ts";
import { addNostr } from "./nostr-verbs.ts";
import type { ServeOptions } from "./serve.ts";
import { addService } from "./service-verbs.ts";
import type { TokenOptions } from "./token.ts";
import type { DraftOptions } from "./token-input.ts";
import { usageOutcome } from "./usage.ts";
import { version, versionLine } from "./version.ts";

const ID_OR_NAME = " <id-or-name>";

/** Written out, because nothing is imported for help; a test compares it with the presets that there are. */
const SERVED =
  "ollama, vllm, llama-cpp, openai, anthropic, dexto, anvil, authsome, routstrd, rusty-valkey-forward-auth or generic";

/** What the program needs from the process. */
export interface ProgramHost {
  /** Standard output. */
  out(text: string): void;
  /** Standard error. */
  err(text: string): void;
  /** Made only when a command runs. */
  context(): Promise<CliContext>;
}

/** Runs one action; the exit code is what {@link runProgram} resolves to. */
type Run = (action: Action) => Promise<void>;

/**
 * Parses `args` (without the program's own name), runs the command and resolves to its exit code.
 * @throws OperatorError with exit code 2 for arguments that cannot be understood, and whatever the command throws
 */
export async function runProgram(args: readonly string[], host: ProgramHost): Promise<ExitCode> {
  refuseKeys(args);
  let exitCode: ExitCode = EXIT.ok;
  const program = createProgram(host, async (action) => {
    exitCode = await action(await host.context());
  });
  // Not an option of the parser's own help, which takes none.
  if (args[0] === "help" && args[1] === "--man" && args.length === 2) {
    const { treeOf } = await import("./command-tree.ts");
    host.out((await import("./manual.ts")).manualPage(treeOf(program)));
    return EXIT.ok;
  }
  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return await usageOutcome(error, args);
    throw error;
  }
}

/** Every verb with its options and help; `run` is handed what a verb does. */
export function createProgram(host: Pick<ProgramHost, "out" | "err">, run: Run): Command {
  const program = new Command("gatehouse")
    .description("Stands in front of HTTP services and decides who may pass.")
    .exitOverride()
    // Errors of usage are worded by usage.ts; help for a missing verb still comes through writeErr.
    .configureOutput({ writeOut: host.out, writeErr: host.err, outputError: () => {} })
    .version(versionLine(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help for a command; --man: the manual page");
  addInit(program, { run, verb });
  addServing(program, run);
  addConfig(program, run);
  addToken(program, run);
  addNostr(program, { run, verb });
  addService(program, { run, verb });
  addEmit(program, { run, verb });
  addBackup(program, { run, verb });
  addDoctor(program, { run, verb });
  addCompletion(program, { run, verb });
  addInspection(program, run, host);
  program.addHelpText("after", programHelp());
  return program;
}

function addServing(program: Command, run: Run): void {
  verb(
    program,
    "serve",
    "run the gateway until it is asked to stop",
    "gatehouse serve -c /etc/gatehouse/config.yaml",
  )
    .option("--listen <address>", "host:port or unix:/path instead of the file's server.listen")
    .option("-p, --port <number>", "with --preset: port to listen on")
    .option("--host <address>", "with --preset: address to listen on")
    .option("-u, --upstream <url>", "with --preset: what is guarded")
    .option("-d, --db-path <file>", "with --preset routstrd: the daemon's database")
    .option("--auth-env <name>", "with --preset anvil: the variable that holds its token")
    .action((options: ServeOptions) =>
      run(async (context) => (await import("./serve.ts")).serve(context, options)),
    );
  verb(
    program,
    "reload",
    "have the running gateway read its configuration anew, and wait for what comes of it",
    "gatehouse reload -c /etc/gatehouse/config.yaml",
  ).action((options: CommonOptions) =>
    run(async (context) => (await import("./reload.ts")).reload(context, options)),
  );
  verb(
    program,
    "demo",
    "run a gateway in front of a small built-in upstream, with a fresh token",
    "gatehouse demo --port 9000",
  )
    .option("--port <number>", "port to listen on (default 8008, or a free one if taken)", port)
    .action((options: CommonOptions & { port?: number }) =>
      run(async (context) => (await import("./demo.ts")).demo(context, options)),
    );
}

function addConfig(program: Command, run: Run): void {
  const config = program.command("config").description("check and print the configuration");
  verb(
    config,
    "validate",
    "check the configuration as serve does before it listens",
    "gatehouse config validate -c gatehouse.yaml",
  ).action((options: CommonOptions) =>
    run(async (context) => (await import("./config.ts")).configValidate(context, options)),
  );
  verb(
    config,
    "show",
    "print the configuration in effect, without secrets",
    "gatehouse config show -c gatehouse.yaml --json",
  )
    .option("--expanded", "with every default filled in")
    .action((options: CommonOptions & { expanded?: boolean }) =>
      run(async (context) => (await import("./config.ts")).configShow(context, options)),
    );
  verb(
    config,
    "schema",
    "print the JSON Schema of the configuration file",
    "gatehouse config schema > gatehouse.schema.json",
  ).action((options: CommonOptions) =>
    run(async (context) => (await import("./config.ts")).configSchema(context, options)),
  );
}

function addToken(program: Command, run: Run): void {
  const token = program.command("token").description("make, list and end tokens");
  drafted(
    tokenVerb(token, "create", "make a token and print it, once", "--name laptop --expires 30d"),
  )
    .requiredOption("--name <name>", "what or who it is for")
    .action((options: TokenOptions & DraftOptions & { name: string }) =>
      run(async (context) => (await import("./token.ts")).tokenCreate(context, options)),
    );
  tokenVerb(token, "list", "list tokens, without their secrets", "--unused 90d")
    .option("--unused <duration>", "only those not used for so long")
    .action((options: TokenOptions & { unused?: string }) =>
      run(async (context) => (await import("./token.ts")).tokenList(context, options)),
    );
  tokenVerb(token, "show", "show one token, without its secret", "laptop", ID_OR_NAME).action(
    (idOrName: string, options: TokenOptions) =>
      run(async (context) =>
        (await import("./token.ts")).tokenShow(context, { ...options, idOrName }),
      ),
  );
  tokenVerb(token, "rotate", "give a token a new secret", "laptop --grace 24h", ID_OR_NAME)
    .option("--grace <duration>", "how long the old secret still works (default: not at all)")
    .action((idOrName: string, options: TokenOptions & { grace?: string }) =>
      run(async (context) =>
        (await import("./token.ts")).tokenRotate(context, { ...options, idOrName }),
      ),
    );
  tokenVerb(token, "revoke", "end a token at once", 'laptop --reason "lost"', ID_OR_NAME)
    .option("--reason <text>", "kept with the token")
    .action((idOrName: string, options: TokenOptions & { reason?: string }) =>
      run(async (context) =>
        (await import("./token.ts")).tokenRevoke(context, { ...options, idOrName }),
      ),
    );
  drafted(
    tokenVerb(token, "import", "take over a token, read from standard input", "--name ci < token"),
  )
    .option("--name <name>", "what or who it is for")
    .option("--json-lines", "read many: one object with token and name per line")
    .action((options: TokenOptions & DraftOptions & { jsonLines?: boolean }) =>
      run(async (context) => (await import("./token.ts")).tokenImport(context, options)),
    );
}

function addInspection(program: Command, run: Run, host: Pick<ProgramHost, "out">): void {
  verb(
    program,
    "healthcheck",
    "ask a running gateway whether it is alive (exit 0 or 3)",
    "gatehouse healthcheck -c /etc/gatehouse/config.yaml",
  )
    .option("--url <url>", "ask this URL instead of the configured address")
    .action((options: CommonOptions & { url?: string }) =>
      run(async (context) => (await import("./healthcheck.ts")).healthcheck(context, options)),
    );
  // Without a context: to say which build this is, no plugin has to be loaded.
  verb(program, "version", "print the version", "gatehouse version --json").action(
    (options: CommonOptions) => {
      version(host, options);
    },
  );
}

/** A verb with the options that all take, and an example below its help. */
function verb(parent: Command, usage: string, description: string, example: string): Command {
  return parent
    .command(usage)
    .description(description)
    .option("-c, --config <file>", "configuration file", once)
    .option("--preset <name>", `instead of a file: ${SERVED} (docs/presets.md)`)
    .option("--json", "print JSON")
    .option("--no-color", "print without colours; so does NO_COLOR")
    .addHelpText("after", `\nExample:\n  ${example}`);
}

/** A verb about tokens; `rest` is what follows the verb in its example. */
function tokenVerb(
  parent: Command,
  name: string,
  description: string,
  rest: string,
  positional = "",
): Command {
  return verb(parent, name + positional, description, `gatehouse token ${name} ${rest}`).option(
    "--strategy <name>",
    "strategy that keeps it (default: the only one that keeps tokens)",
  );
}

/** The options that describe a new token. */
function drafted(command: Command): Command {
  return command
    .option("--owner <owner>", "who it belongs to")
    .option("--role <role>", "admin or user (default user)")
    .option("--scope <scope>", "what it may be used for; repeat for several", collect)
    .option("--expires <when>", "duration such as 30d, or a time")
    .option("--not-before <when>", "duration such as 1h, or a time");
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}

/** The second of two files would win, and nobody would be told. */
function once(value: string, earlier: string | undefined): string {
  if (earlier === undefined) return value;
  throw new InvalidArgumentError("it is given twice.");
}

function port(text: string): number {
  const value = Number(text);
  if (/^\d{1,5}$/.test(text) && value <= 65_535) return value;
  throw new InvalidArgumentError("expected a port from 0 to 65535.");
}
