/**
 * The verbs around Nostr keys: `npub`, `sign`, `clients`, with their options and examples.
 *
 * Invariant: like program.ts it imports a command only when that command is meant.
 */
import type { Command } from "commander";
import type { ClientsOptions } from "./clients.ts";
import type { Action, CommonOptions } from "./context.ts";
import type { NpubOptions } from "./npub.ts";
import type { SignOptions } from "./sign.ts";

/** What program.ts lends. */
export interface VerbTools {
  /** Runs one action. */
  run(action: Action): Promise<void>;
  /** A verb with the options that all take, and an example below its help. */
  verb(parent: Command, usage: string, description: string, example: string): Command;
}

/** Adds the verbs to the program. */
export function addNostr(program: Command, tools: VerbTools): void {
  addNpub(program, tools);
  addSign(program, tools);
  addClients(program, tools);
}

function addNpub(program: Command, { run, verb }: VerbTools): void {
  const npub = program.command("npub").description("Nostr public keys that may pass");
  const member = (usage: string, description: string, example: string): Command =>
    verb(npub, usage, description, `gatehouse npub ${example}`).option(
      "--strategy <name>",
      "strategy that knows them (default: the only one that does)",
    );
  member("add <npub>", "register a public key", "add npub1… --role admin --name Alice")
    .option("--role <role>", "admin or user (default user)")
    .option("--name <name>", "whose it is")
    .action((key: string, options: NpubOptions & { role?: string; name?: string }) =>
      run(async (context) => (await import("./npub.ts")).npubAdd(context, { ...options, key })),
    );
  member("list", "list the registered keys", "list --json").action((options: NpubOptions) =>
    run(async (context) => (await import("./npub.ts")).npubList(context, options)),
  );
  member("remove <npub>", "let a key in no longer", "remove npub1…").action(
    (key: string, options: NpubOptions) =>
      run(async (context) => (await import("./npub.ts")).npubRemove(context, { ...options, key })),
  );
  member("role <npub> <role>", "make a member admin or user", "role npub1… admin").action(
    (key: string, role: string, options: NpubOptions) =>
      run(async (context) =>
        (await import("./npub.ts")).npubRole(context, { ...options, key, role }),
      ),
  );
  verb(
    npub,
    "new",
    "make a secret key in a file and print its npub",
    "gatehouse npub new --key-file me.nsec",
  )
    .requiredOption("--key-file <file>", "file to make; it must not be there")
    .action((options: CommonOptions & { keyFile: string }) =>
      run(async (context) => (await import("./npub.ts")).npubNew(context, options)),
    );
}

function addSign(program: Command, { run, verb }: VerbTools): void {
  const example =
    'curl -H "$(gatehouse sign GET https://llm.example.com/v1/models --key-file me.nsec)" https://llm.example.com/v1/models';
  keyed(
    verb(program, "sign <method> <url>", "print a header that proves a request (NIP-98)", example),
  )
    .option(
      "--body <file>",
      "the body that will be sent, - for standard input (curl --data-binary)",
    )
    .action((method: string, url: string, options: Omit<SignOptions, "method" | "url">) =>
      run(async (context) =>
        (await import("./sign.ts")).sign(context, { ...options, method, url }),
      ),
    );
}

function addClients(program: Command, { run, verb }: VerbTools): void {
  const clients = program
    .command("clients")
    .description("client keys of routstrd, over a running gateway");
  const remote = (usage: string, description: string, example: string): Command =>
    keyed(verb(clients, usage, description, `gatehouse clients ${example}`)).option(
      "--url <url>",
      "the gateway (default: the variable ROUTSTRD_AUTH_URL)",
    );
  remote("add", "make a client and print its key, alone", "add --name laptop --key-file me.nsec")
    .requiredOption("--name <name>", "what or who it is for")
    .option("--id <id>", "default: the name in lower case, with - for blanks")
    .action((options: ClientsOptions & { name: string; id?: string }) =>
      run(async (context) => (await import("./clients.ts")).clientsAdd(context, options)),
    );
  remote("list", "list clients", "list --url https://llm.example.com")
    .option("--show-keys", "print the keys, too")
    .action((options: ClientsOptions & { showKeys?: boolean }) =>
      run(async (context) => (await import("./clients.ts")).clientsList(context, options)),
    );
  remote("delete <id>", "end a client's key", "delete laptop").action(
    (id: string, options: ClientsOptions) =>
      run(async (context) =>
        (await import("./clients.ts")).clientsDelete(context, { ...options, id }),
      ),
  );
}

function keyed(command: Command): Command {
  return command.option(
    "--key-file <file>",
    "file with the secret key, mode 0600 (default: NOSTR_NSEC, or a question)",
  );
}
