/**
 * How a command speaks to a running gateway: a unix socket in its state directory, which only its user and root reach.
 *
 * Invariant: the one thing that can be asked for is to read the configuration anew, and nothing secret is said. It is a
 * convenience: a gateway without it serves all the same.
 */
import { join } from "node:path";
import { EXIT, type ExitCode, errorCode, errorMessage, OperatorError } from "../errors.ts";
import { bindUnix } from "../listener.ts";
import { prepareStateDir } from "../store/state-dir.ts";
import { NOBODY, Outgoing, type OwnedSocket, type SocketOwner } from "../wire/socket.ts";

/** What came of reading the configuration anew. */
export type Verdict =
  | {
      readonly ok: true;
      /** What is served now, in one line. */
      readonly summary: string;
      /** See configDifference. */
      readonly changed: readonly string[];
      /** Addresses. */
      readonly added: readonly string[];
      readonly removed: readonly string[];
    }
  | {
      readonly ok: false;
      /** What would have ended the program at its start. */
      readonly exitCode: ExitCode;
      readonly error: string;
      readonly hint?: string | undefined;
    };

const REQUEST = "reload\n";
/** sockaddr_un.sun_path with its final NUL (unix(7)); macOS has less. */
const MAX_PATH_BYTES = process.platform === "darwin" ? 103 : 107;
/** More than the start of a strategy may take, several times. */
const ANSWER_MS = 300_000;

/** Where the gateway that keeps its state in `stateDir` listens for commands. */
export function controlPath(stateDir: string): string {
  return join(stateDir, "control.sock");
}

/** The ear of a running gateway. */
export interface Control {
  close(): void;
}

/** @throws when there cannot be one, for instance because nothing can be written there */
export async function openControl(
  stateDir: string,
  reload: () => Promise<Verdict>,
): Promise<Control> {
  const path = fitting(stateDir);
  prepareStateDir(stateDir);
  const listener = await bindUnix(path, 0o600, (socket) => hear(socket, reload));
  return { close: () => listener.stop() };
}

function fitting(stateDir: string): string {
  const path = controlPath(stateDir);
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return path;
  throw new OperatorError(EXIT.config, `${path} is too long for a socket`);
}

function hear(socket: OwnedSocket, reload: () => Promise<Verdict>): void {
  const outgoing = new Outgoing(socket);
  let said = "";
  const answer = async (): Promise<void> => {
    outgoing.write(Buffer.from(`${JSON.stringify(await reload())}\n`));
    outgoing.end();
  };
  const owner: SocketOwner = {
    ...NOBODY,
    onData(chunk) {
      if (said === REQUEST) return;
      said += chunk.toString("latin1");
      if (said === REQUEST) answer().catch(() => socket.terminate());
      else if (!REQUEST.startsWith(said)) socket.terminate();
    },
    onDrain: () => void outgoing.flush(),
  };
  socket.data = owner;
}

/**
 * Asks the gateway that keeps its state in `stateDir` to read its configuration anew, and waits for what comes of it.
 * @throws OperatorError when there is none, or it may not be asked
 */
export async function askReload(stateDir: string): Promise<Verdict> {
  const path = fitting(stateDir);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const timer = setTimeout(() => {
    reject(new OperatorError(EXIT.unavailable, "the gateway gave no answer within five minutes"));
  }, ANSWER_MS);
  let said = "";
  try {
    await Bun.connect({
      unix: path,
      socket: {
        open: (socket) => void socket.write(REQUEST),
        data(_, chunk) {
          said += chunk.toString("utf8");
        },
        close: () => resolve(said),
      },
    });
    return JSON.parse(await promise) as Verdict;
  } catch (error) {
    throw error instanceof OperatorError ? error : unanswered(error, path);
  } finally {
    clearTimeout(timer);
  }
}

function unanswered(error: unknown, path: string): OperatorError {
  const code = errorCode(error);
  if (error instanceof SyntaxError) {
    return new OperatorError(EXIT.failure, "the gateway ended before it gave an answer");
  }
  if (code === "EACCES" || code === "EPERM") {
    return new OperatorError(
      EXIT.permission,
      `${path} is for the user of the gateway`,
      "Run this as that user, or as root. As a service: systemctl reload gatehouse",
    );
  }
  return new OperatorError(
    EXIT.unavailable,
    `no gateway answers at ${path} (${code ?? errorMessage(error)})`,
    "Name the configuration that it was started with (-c FILE); another state_dir takes a restart. As a service: systemctl reload gatehouse",
  );
}
