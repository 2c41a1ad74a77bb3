/**
 * A network of a test's own, in which nothing else listens: for what looks at all ports of the machine.
 *
 * Invariant: programs in it see a loopback interface and nothing besides; whatever is in it ends with the command.
 */

/** In front of a command. Root needs no user namespace of its own. */
const OWN = process.geteuid?.() === 0 ? ["unshare", "-n"] : ["unshare", "-rn"];
const UP = "ip link set lo up && exec";

/** Why there is none, or null. */
export const NO_OWN_NETWORK: string | null =
  Bun.which("unshare") === null || Bun.which("ip") === null
    ? "no unshare or no ip: run apt-get install util-linux iproute2"
    : Bun.spawnSync([...OWN, "sh", "-c", `${UP} true`]).exitCode === 0
      ? null
      : "this process may not make network namespaces";

/** What a program in a network of its own printed. */
export async function inOwnNetwork(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...OWN, "sh", "-c", `${UP} "$@"`, "sh", ...command], {
    env: process.env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`exit ${code}\n${stdout}${stderr}`);
  return stdout;
}
