/**
 * What stands behind every contender: a fixed JSON of 165 bytes on every path, and on /stream/EVERY/COUNT a stream of
 * COUNT events, one each EVERY ms, each with the time at which it was written.
 *
 * Invariant: the same upstream for all; its own CPU time is never counted. A process of its own: `PORT` says where.
 */
import type { Socket } from "bun";

/** 165 bytes. */
export const BODY = JSON.stringify({
  object: "list",
  data: [
    { id: "small", object: "model", created: 1700000000, owned_by: "me" },
    { id: "large", object: "model", created: 1700000000, owned_by: "you" },
  ],
});

/** Milliseconds since the epoch with fractions: comparable between processes up to a constant. */
export function preciseNowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** As long as what a model server sends for one word. */
const FILLER = "x".repeat(140);
const HEAD_END = Buffer.from("\r\n\r\n");
const ANSWER = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`;
const STREAM_HEAD =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

interface Connection {
  pending: Buffer | null;
  isOpen: boolean;
}

function received(socket: Socket<Connection>, chunk: Buffer): void {
  const { pending } = socket.data;
  let bytes = pending === null ? chunk : Buffer.concat([pending, chunk]);
  for (let end = bytes.indexOf(HEAD_END); end !== -1; end = bytes.indexOf(HEAD_END)) {
    const target = bytes.toString("latin1", 0, end).split(" ", 2)[1] ?? "";
    const stream = /^\/stream\/(\d+)\/(\d+)$/.exec(target);
    if (stream === null) socket.write(ANSWER);
    else sendStream(socket, Number(stream[1]), Number(stream[2]));
    bytes = bytes.subarray(end + 4);
  }
  socket.data.pending = bytes.length === 0 ? null : Buffer.from(bytes);
}

/** Streams begin at different moments of the interval, as independent answers do. */
function sendStream(socket: Socket<Connection>, everyMs: number, count: number): void {
  socket.write(STREAM_HEAD);
  let left = count;
  const send = (): void => {
    if (!socket.data.isOpen) {
      clearInterval(timer);
      return;
    }
    const event = `data: {"t":${preciseNowMs().toFixed(4)},"n":${count - left},"text":"${FILLER}"}\n\n`;
    left -= 1;
    const isLast = left === 0;
    socket.write(`${event.length.toString(16)}\r\n${event}\r\n${isLast ? "0\r\n\r\n" : ""}`);
    if (isLast) clearInterval(timer);
  };
  let timer: ReturnType<typeof setInterval>;
  setTimeout(() => {
    timer = setInterval(send, everyMs);
    send();
  }, Math.random() * everyMs);
}

if (import.meta.main) {
  Bun.listen<Connection>({
    hostname: "127.0.0.1",
    port: Number(process.env.PORT),
    socket: {
      open(socket) {
        socket.data = { pending: null, isOpen: true };
        socket.setNoDelay(true);
      },
      data: received,
      close(socket) {
        socket.data.isOpen = false;
      },
    },
  });
}
