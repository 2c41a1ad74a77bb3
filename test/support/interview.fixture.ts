/**
 * Interviews on a machine of their own: starts servers on the ports where they usually are, types what it is told, and
 * prints what came of it as JSON. For tests that run it in a network of its own.
 *
 * Invariant: what it is told is its only argument; a question that does not come ends it with what stood on the screen.
 */
import { serveOn } from "./standins/on-port.ts";
import { KEYS, TerminalProgram } from "./terminal.ts";

/** What is typed when a question stands there. */
export interface InterviewStep {
  readonly question: string;
  /** Names of {@link KEYS}, or text. */
  readonly keys?: readonly string[];
  /** Exactly these of the choices. */
  readonly pick?: readonly string[];
}

/** One interview. */
export interface Interview {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly steps: readonly InterviewStep[];
}

/** What it is told. */
export interface InterviewOrder {
  readonly servers: Readonly<Record<string, number>>;
  /** One after the other. */
  readonly interviews: readonly Interview[];
}

/** What it prints, for each. */
export interface InterviewResult {
  readonly code: number;
  readonly text: string;
  readonly written: string;
}

const order = JSON.parse(process.argv[2] ?? "") as InterviewOrder;
const servers = Object.entries(order.servers).map(([kind, port]) => serveOn(kind, port));
const results: InterviewResult[] = [];
for (const one of order.interviews) results.push(await interview(one));
await Bun.write(Bun.stdout, JSON.stringify(results));
for (const server of servers) await server.stop();
process.exit(0);

async function interview({ command, cwd, env, steps }: Interview): Promise<InterviewResult> {
  const program = new TerminalProgram(command, { cwd, env });
  for (const step of steps) {
    await program.waitFor(step.question);
    if (step.pick !== undefined) await pick(program, step.pick);
    for (const key of step.keys ?? []) program.type(keyOf(key));
  }
  const code = await program.ended;
  return { code, text: program.text(), written: program.written() };
}

function keyOf(name: string): string {
  return Object.hasOwn(KEYS, name) ? KEYS[name as keyof typeof KEYS] : name;
}

/** Goes through the list from its first line; whatever is chosen already and not wanted is taken back. */
async function pick(program: TerminalProgram, wanted: readonly string[]): Promise<void> {
  await program.waitFor("Enter: confirm");
  const lines = program
    .text()
    .split("\n")
    .filter((line) => /^│\s+[◻◼]/.test(line));
  // The line that the cursor is on has a remark in brackets.
  const labels = lines.map((line) => line.replace(/^│\s+[◻◼]\s*|\s+\(.*\)$/g, ""));
  const missing = wanted.filter((label) => !labels.includes(label));
  if (missing.length > 0) throw new Error(`no ${missing.join(", ")} in\n${program.text()}`);
  for (const [index, line] of lines.entries()) {
    if (index > 0) program.type(KEYS.down);
    const isChosen = line.includes("◼");
    if (isChosen !== wanted.includes(labels[index] ?? "")) program.type(KEYS.space);
  }
  program.type(KEYS.enter);
}
