/**
 * How programs that people guard are told to listen on this machine alone.
 *
 * Invariant: pure. Each line is from the program's own documentation; for what is not known the advice is general.
 */
import type { OwnerProcess } from "./proc-net.ts";

interface Known {
  /** Tried on the command line. */
  readonly is: RegExp;
  advice(port: number): string;
}

const LOOPBACK = "127.0.0.1";

const KNOWN: readonly Known[] = [
  {
    is: /\bdocker-proxy\b/,
    advice: (port) =>
      `publish it on this machine alone: \`-p ${LOOPBACK}:${port}:${port}\`, or ports: ["${LOOPBACK}:${port}:${port}"] in the compose file (Docker goes past ufw)`,
  },
  {
    is: /\bollama\b/,
    advice: (port) =>
      `\`sudo systemctl edit ollama\`, then under [Service] Environment="OLLAMA_HOST=${LOOPBACK}:${port}", then \`sudo systemctl restart ollama\``,
  },
  { is: /\bvllm\b/, advice: (port) => `start it with \`--host ${LOOPBACK} --port ${port}\`` },
  {
    is: /\bllama-server\b|\bllama\.cpp\b|\bllama_cpp\b/,
    advice: (port) => `start it with \`--host ${LOOPBACK} --port ${port}\``,
  },
  { is: /\bsglang\b|\blmdeploy\b/, advice: () => `start it with \`--host ${LOOPBACK}\`` },
  { is: /\btext-generation-launcher\b/, advice: () => `start it with \`--hostname ${LOOPBACK}\`` },
  {
    is: /\blitellm\b|\bopen-webui\b|\buvicorn\b/,
    advice: () => `start it with \`--host ${LOOPBACK}\``,
  },
  { is: /\bgunicorn\b/, advice: (port) => `start it with \`--bind ${LOOPBACK}:${port}\`` },
  {
    is: /\blm-?studio\b|\blms\b/i,
    advice: () => 'switch "Serve on Local Network" off in its developer settings',
  },
  {
    is: /\bpython[\d.]*\b.*\bhttp\.server\b/,
    advice: () => `start it with \`--bind ${LOOPBACK}\``,
  },
  {
    is: /\b(?:valkey|redis)-server\b/,
    advice: () => `\`bind ${LOOPBACK} -::1\` in its configuration`,
  },
];

/** What to do so that the port is this machine's own. @param owner null when it may not be seen */
export function bindAdvice(owner: OwnerProcess | null, port: number): string {
  const line = owner === null ? "" : [owner.name, ...owner.argv].join(" ");
  const known = KNOWN.find(({ is }) => is.test(line));
  if (known !== undefined) return known.advice(port);
  const see = owner === null ? `see who it is with \`sudo ss -ltnp sport = :${port}\`, then ` : "";
  return `${see}let it listen on ${LOOPBACK} (most programs have \`--host\` or \`HOST\`), or close the port: \`sudo ufw deny ${port}/tcp\``;
}
