/**
 * A program in a pseudo-terminal: its keys are typed, and what stands on its screen is read, as a person would.
 *
 * Invariant: nothing sleeps; waiting is for a text, and what stands on the screen is part of the error. No program
 * outlives the process that started it. Also for processes that are no test runner.
 */
/** Keys that have no letter. */
export const KEYS = {
  enter: "\r",
  escape: "\u001b",
  ctrlC: "\u0003",
  up: "\u001b[A",
  down: "\u001b[B",
  space: " ",
  /** Clears what was typed so far. */
  clear: "\u0015",
} as const;

/** How it is started. */
export interface TerminalOptions {
  readonly cwd?: string;
  /** The whole environment beside PATH and TERM. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default 100. */
  readonly columns?: number;
  /** Default 50. */
  readonly rows?: number;
}

/** How long a text is waited for. */
const PATIENCE_MS = 10_000;

const alive = new Set<TerminalProgram>();

process.on("exit", () => {
  for (const program of alive) program.kill();
});

/** A running program. */
export class TerminalProgram {
  private readonly child: Bun.Subprocess;
  private readonly screen: Screen;
  private waiting: (() => void) | null = null;
  private seen = 0;
  /** Everything that was written to the terminal. */
  private raw = "";
  readonly ended: Promise<number>;

  constructor(command: readonly string[], options: TerminalOptions = {}) {
    const { columns = 100, rows = 50, env = {}, cwd } = options;
    this.screen = new Screen(columns);
    const decoder = new TextDecoder();
    this.child = Bun.spawn([...command], {
      ...(cwd === undefined ? {} : { cwd }),
      env: { PATH: process.env.PATH ?? "", TERM: "xterm-256color", ...env },
      terminal: {
        cols: columns,
        rows,
        data: (_terminal, data) => {
          const text = decoder.decode(data, { stream: true });
          this.raw += text;
          this.screen.write(text);
          this.waiting?.();
        },
      },
    });
    alive.add(this);
    this.ended = this.child.exited.finally(() => {
      alive.delete(this);
      this.waiting?.();
    });
  }

  get pid(): number {
    return this.child.pid;
  }

  /** All lines since the start, as they look now. */
  text(): string {
    return this.screen.text();
  }

  /** As it was written, with its escapes. */
  written(): string {
    return this.raw;
  }

  /** Lines that were longer than the terminal is wide. */
  overflowing(): readonly string[] {
    return this.screen.overflowing();
  }

  type(...keys: readonly string[]): void {
    for (const key of keys) this.child.terminal?.write(key);
  }

  /** Until `text` is written, after what was waited for before. */
  async waitFor(text: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    let isOver = false;
    void this.child.exited.then(() => {
      isOver = true;
    });
    while (true) {
      const at = flattened(this.raw).indexOf(flattened(text), this.seen);
      if (at !== -1) {
        this.seen = at + flattened(text).length;
        return;
      }
      if (isOver || performance.now() > deadline) {
        throw new Error(
          `${isOver ? `it ended (${this.child.exitCode})` : "not"} before ${JSON.stringify(text)} appeared:\n${this.text()}`,
        );
      }
      await this.more(deadline - performance.now());
    }
  }

  /** The terminal is closed, as when a window is. */
  hangUp(): void {
    this.child.terminal?.close();
    this.child.kill("SIGHUP");
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  private async more(withinMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.waiting = resolve;
    const timer = setTimeout(resolve, Math.max(1, withinMs));
    await promise;
    clearTimeout(timer);
    this.waiting = null;
  }
}

/** Without escapes, line ends and the guide at the left, so that a break in a line does not count. */
function flattened(text: string): string {
  return text.replaceAll(/\u001b\[[?0-9;]*[A-Za-z]|[\s│]+/g, "");
}

/** As much of a terminal as the prompts use: lines without end upwards and downwards, moves, erasing. */
class Screen {
  private readonly columns: number;
  private readonly lines: string[][] = [[]];
  private row = 0;
  private column = 0;
  private readonly wrapped = new Set<number>();
  private rest = "";

  constructor(columns: number) {
    this.columns = columns;
  }

  write(text: string): void {
    let rest = this.rest + text;
    this.rest = "";
    while (rest !== "") {
      const sequence = /^\u001b(?:\[([?0-9;]*)([A-Za-z])|[^[])/.exec(rest);
      if (sequence !== null) {
        if (sequence[2] !== undefined) this.control(sequence[1] ?? "", sequence[2]);
        rest = rest.slice(sequence[0].length);
      } else if (rest.startsWith("\u001b")) {
        this.rest = rest;
        return;
      } else {
        const character = String.fromCodePoint(rest.codePointAt(0) ?? 0);
        this.put(character);
        rest = rest.slice(character.length);
      }
    }
  }

  text(): string {
    return this.lines
      .map((line) =>
        Array.from(line, (cell) => cell ?? " ")
          .join("")
          .trimEnd(),
      )
      .join("\n");
  }

  overflowing(): readonly string[] {
    return [...this.wrapped].map(
      (row) => (this.lines[row] ?? []).join("") + (this.lines[row + 1] ?? []).join(""),
    );
  }

  private put(character: string): void {
    if (character === "\n") this.move(1, 0);
    else if (character === "\r") this.column = 0;
    else if (character === "\b") this.column = Math.max(0, this.column - 1);
    else if (character >= " ") {
      if (this.column >= this.columns) {
        this.wrapped.add(this.row);
        this.move(1, 0);
        this.column = 0;
      }
      this.line()[this.column] = character;
      this.column += Math.max(1, Bun.stringWidth(character));
    }
  }

  private control(parameters: string, command: string): void {
    const count = Number(parameters) || 1;
    if (command === "A") this.move(-count, 0);
    else if (command === "B") this.move(count, 0);
    else if (command === "C") this.move(0, count);
    else if (command === "D") this.move(0, -count);
    else if (command === "G") this.column = count - 1;
    else if (command === "K") this.eraseLine(parameters);
    else if (command === "J") {
      this.line().length = Math.min(this.line().length, this.column);
      this.lines.length = this.row + 1;
    }
  }

  private eraseLine(parameters: string): void {
    if (parameters === "2") this.line().length = 0;
    else if (parameters === "1") this.line().fill(" ", 0, this.column + 1);
    else this.line().length = Math.min(this.line().length, this.column);
  }

  private move(rows: number, columns: number): void {
    this.row = Math.max(0, this.row + rows);
    this.column = Math.min(this.columns, Math.max(0, this.column + columns));
    while (this.lines.length <= this.row) this.lines.push([]);
  }

  private line(): string[] {
    const line = this.lines[this.row];
    if (line === undefined) throw new Error("no such line");
    return line;
  }
}
