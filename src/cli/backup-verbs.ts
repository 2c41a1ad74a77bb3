/**
 * `backup` and `restore`: their options and help.
 *
 * Invariant: nothing is imported before it is known which verb is meant.
 */
import type { Command } from "commander";
import type { BackupOptions } from "./backup.ts";
import type { VerbTools } from "./nostr-verbs.ts";
import type { RestoreOptions } from "./restore.ts";

const BACKUP_EXAMPLES = `gatehouse backup --out /var/backups/gatehouse.age
  gatehouse backup --new-identity backup.key
  gatehouse backup --recipient age1… --out - | ssh store@example.com 'cat > gatehouse.age'`;

const RESTORE_EXAMPLES = `gatehouse restore gatehouse.age --dry-run
  gatehouse restore gatehouse.age --identity backup.key -c /etc/gatehouse/config.yaml
  gatehouse restore gatehouse.age --only state --replace`;

/** Adds the verbs to the program. */
export function addBackup(program: Command, { run, verb }: VerbTools): void {
  secret(
    verb(
      program,
      "backup",
      "write state, keys and configuration into one encrypted file, also while the gateway runs",
      BACKUP_EXAMPLES,
    ),
  )
    .option("-o, --out <file>", "file or directory to write to, - for standard output")
    .option("--recipient <age1…>", "encrypt for this public key; repeat for several", collect)
    .option("--force", "replace a file of that name")
    .option("--new-identity <file>", "instead of a backup: make a secret key, print its public key")
    .action((options: BackupOptions) =>
      run(async (context) => (await import("./backup.ts")).backup(context, options)),
    );
  secret(
    verb(
      program,
      "restore [file]",
      "put back what backup wrote; everything is verified before anything is touched",
      RESTORE_EXAMPLES,
    ),
  )
    .option("--identity <file>", "file with the secret key; repeat for several", collect)
    .option("--state-dir <dir>", "where the state goes (default: what the configuration says)")
    .option("--only <what>", "state or config")
    .option("--replace", "move what is there aside, to a directory that is kept")
    .option("--dry-run", "verify, say what would be done, and do nothing")
    .option("--max-size <size>", "refuse a backup that holds more (default 4GiB)")
    .option("--undo", "bring back what was there before a restore that was cut off")
    .action((file: string | undefined, options: Omit<RestoreOptions, "file">) =>
      run(async (context) =>
        (await import("./restore.ts")).restore(context, {
          ...options,
          ...(file === undefined ? {} : { file }),
        }),
      ),
    );
}

function secret(command: Command): Command {
  return command
    .option("--passphrase-file <file>", "file with the passphrase, mode 0600; - for standard input")
    .option("--passphrase <reference>", "'${env:NAME}', '${file:/path}' or '${cred:name}'");
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}
