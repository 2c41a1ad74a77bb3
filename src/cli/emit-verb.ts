/**
 * The verb `emit` with its options and example.
 *
 * Invariant: like program.ts it imports the command only when that command is meant.
 */
import type { Command } from "commander";
import type { EmitOptions } from "./emit.ts";
import type { VerbTools } from "./nostr-verbs.ts";

/** Commander's name for a repeated option. */
type Given = Omit<EmitOptions, "credentialHeaders"> & {
  readonly credentialHeader?: readonly string[];
};

/** Adds the verb to the program. */
export function addEmit(program: Command, { run, verb }: VerbTools): void {
  verb(
    program,
    "emit <proxy>",
    "print what traefik, nginx, caddy, envoy or haproxy needs to ask this gateway",
    "gatehouse emit nginx --upstream http://127.0.0.1:9000 > /etc/nginx/conf.d/app.conf",
  )
    .option("--path <path>", "the route with check that is asked (default: the first)")
    .option("--gateway <url>", "where the proxy reaches the gateway (default: server.listen)")
    .option("--upstream <url>", "the application (default http://127.0.0.1:9000)")
    .option(
      "--credential-header <name>",
      "a header that your own strategy reads, to be removed; repeat for several",
      (name: string, earlier: readonly string[] = []): readonly string[] => [...earlier, name],
    )
    .option("--labels", "for traefik: Docker labels")
    .option("--lua", "for haproxy: the Lua file")
    .action((proxy: string, { credentialHeader, ...options }: Given) =>
      run(async (context) =>
        (await import("./emit.ts")).emit(context, proxy, {
          ...options,
          ...(credentialHeader === undefined ? {} : { credentialHeaders: credentialHeader }),
        }),
      ),
    );
}
