/**
 * The verbs `init` and `uninstall` with their options and examples.
 *
 * Invariant: like program.ts it imports a command only when that command is meant.
 */
import type { Command } from "commander";
import type { InitOptions } from "./init/answers.ts";
import type { VerbTools } from "./nostr-verbs.ts";

const EXAMPLES = `gatehouse init
  gatehouse init --yes --upstream http://127.0.0.1:11434 --name alice
  gatehouse init --yes --upstream http://127.0.0.1:8000 --listen 127.0.0.1:9000 --dir ./gate --no-service --json
  gatehouse init --undo`;

/** Adds the verbs to the program. */
export function addInit(program: Command, { run, verb }: VerbTools): void {
  const command = verb(
    program,
    "init",
    "set up by questions: what is guarded, who may enter, where it runs; then prove it",
    EXAMPLES,
  );
  // Here it says what is guarded, not what is served without a file.
  const preset = command.options.find(({ long }) => long === "--preset");
  if (preset !== undefined) {
    preset.description = "what the upstream is (docs/presets.md; default: as it is recognised)";
  }
  whatAndWho(command);
  whereAndHow(command)
    .option("-y, --yes", "ask nothing: take the flags, and defaults for the rest")
    .option("--answers <file>", "take the answers from a YAML or JSON file (docs/init.md)")
    .option("--undo", "take away what init made here")
    .action((options: InitOptions) =>
      run(async (context) => (await import("./init.ts")).init(context, options)),
    );
  verb(
    program,
    "uninstall",
    "take away what init made, the same as init --undo",
    "gatehouse uninstall --yes",
  )
    .option("--dir <dir>", "directory of the configuration")
    .option("-y, --yes", "also remove the state with its tokens, without asking")
    .action((options: InitOptions) =>
      run(async (context) => (await import("./init.ts")).uninstall(context, options)),
    );
}

function whatAndWho(command: Command): Command {
  return command
    .option("--upstream <url>", "what is guarded, URL or NAME=URL; repeat for several", collect)
    .option("--host <name>", "host name that the upstream is for")
    .option("--key-env <name>", "variable with the upstream's own key")
    .option("--key-file <file>", "file with the upstream's own key")
    .option("--access <kind>", "tokens, npubs, valkey, static or oidc; repeat for several", collect)
    .option("--npub <npub>", "with --access npubs: a public key that is admin", collect)
    .option("--set <kind.key=value>", "a setting of a strategy, such as valkey.url=…", collect)
    .option("--name <name>", "what the first token is for (default first)")
    .option("--role <role>", "its role: admin or user (default user)")
    .option("--expires <when>", "when it ends: a duration such as 30d, or a time");
}

function whereAndHow(command: Command): Command {
  return command
    .option("--clients <where>", "clients come from this-machine, through a proxy, or public")
    .option("--listen <address>", "host:port (default 127.0.0.1:8008, or the next that is free)")
    .option("--public-url <url>", "origin under which clients reach it")
    .option("--trusted-proxy <cidr>", "proxy whose X-Forwarded-* is believed", collect)
    .option("--domain <name>", "name under which clients reach it, with TLS")
    .option("--tls-cert <file>", "certificate chain, PEM")
    .option("--tls-key <file>", "its key, PEM")
    .option("--dir <dir>", "directory of config.yaml and state")
    .option("--state-dir <dir>", "directory of the state")
    .option("--service <scope>", "run it as a service: system or user")
    .option("--no-service", "do not")
    .option("--service-name <name>", "name of the service (default gatehouse)")
    .option("--user-account <name>", "account of the service (default: one that systemd makes)")
    .option("--offline", "go on although an upstream or a name does not answer");
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}
