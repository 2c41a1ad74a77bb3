/**
 * Whole-program scenarios of upstreams that are down, slow, broken or cut, and of clients that leave.
 *
 * Invariant: a fault is told by its status and `x-gatehouse-reason`, a cut is seen as one, and no request that could
 * change something is sent twice.
 */
import { expect, test } from "bun:test";
import type { Socket } from "bun";
import {
  describeBoth,
  type GatewayUnderTest,
  OPS_ENV,
  type StartGateway,
  simpleConfig,
} from "../support/gateway.ts";
import { eventually, OK_RESPONSE, openRaw, type RawConnection, raw } from "../support/raw.ts";
import { untilEnd } from "../support/upstreams.ts";

const { stops, upstreamOf } = untilEnd();

/** An upstream whose sockets the test holds itself: `heads` counts request heads, `sockets` are in order of arrival. */
function handUpstream(onHead: (socket: Socket<{ text: string }>, head: string) => void) {
  const heads: string[] = [];
  const sockets: Socket<{ text: string }>[] = [];
  let closed = 0;
  const listener = Bun.listen<{ text: string }>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.data = { text: "" };
        sockets.push(socket);
      },
      data(socket, chunk) {
        socket.data.text += chunk.toString("latin1");
        const end = socket.data.text.indexOf("\r\n\r\n");
        if (end === -1) return;
        const head = socket.data.text.slice(0, end);
        socket.data.text = "";
        heads.push(head);
        onHead(socket, head);
      },
      close() {
        closed += 1;
      },
      error() {},
    },
  });
  stops.push(() => listener.stop(true));
  return {
    address: `127.0.0.1:${listener.port}`,
    heads,
    sockets,
    get closed() {
      return closed;
    },
  };
}

function gatewayTo(start: StartGateway, address: string, upstream = ""): Promise<GatewayUnderTest> {
  return start({ config: simpleConfig(`http://${address}`, { upstream }), env: OPS_ENV });
}

const get = (path = "/public/x", more = "Connection: close\r\n") =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
const post = (path = "/public/x", body = "hello", more = "") =>
  `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n${more}\r\n${body}`;
const reasonOf = (text: string) => /X-Gatehouse-Reason: (\w+)/.exec(text)?.[1];
const bodyOf = (text: string) => text.slice(text.indexOf("\r\n\r\n") + 4);

describeBoth("An upstream that gives no answer", (start) => {
  test("is 502 with our reason and a fault in the log when nothing listens there", async () => {
    const upstream = upstreamOf();
    upstream.stop();
    const gateway = await gatewayTo(start, upstream.address);
    const { statuses, text } = await raw(gateway.address, get());
    expect(statuses).toEqual([502]);
    expect(reasonOf(text)).toBe("upstream_unreachable");
    expect(text).not.toContain(upstream.address);
    await eventually("the fault is logged", () => gateway.events("request.fault").length === 1);
    expect(gateway.events("request.fault")[0]?.error).toContain("ECONNREFUSED");
  });

  test("is 504 when the connection does not stand in time", async () => {
    // TLS that is never answered: the connection is there, but it does not stand.
    const silent = handUpstream(() => {});
    const gateway = await start({
      config: simpleConfig(`https://${silent.address}`, {
        upstream: "    timeouts: { connect: 200ms }",
      }),
      env: OPS_ENV,
    });
    const { statuses, text } = await raw(gateway.address, get());
    expect(statuses).toEqual([504]);
    expect(reasonOf(text)).toBe("upstream_timeout");
    await eventually("the attempt is given up", () => silent.closed === 1);
  });

  test("is 504 when the head does not come in time, once, and the upstream's connection ends", async () => {
    const upstream = upstreamOf(() => {});
    const gateway = await gatewayTo(start, upstream.address, "    timeouts: { response: 200ms }");
    const { statuses, text } = await raw(gateway.address, get());
    expect(statuses).toEqual([504]);
    expect(reasonOf(text)).toBe("upstream_timeout");
    expect(upstream.seen.length).toBe(1);
    await eventually("the upstream's connection ends", () => upstream.closedConnections === 1);
  });

  test("has its time counted from the end of the request body, not from its beginning", async () => {
    const upstream = upstreamOf(() => {});
    upstream.respond = (request, write) => {
      void eventually("the body is whole", () => request.body.length === 3).then(() =>
        write(OK_RESPONSE),
      );
    };
    const gateway = await gatewayTo(start, upstream.address, "    timeouts: { response: 400ms }");
    const client = await openRaw(gateway.address);
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    const begun = performance.now();
    for (const [index, letter] of ["a", "b", "c"].entries()) {
      await eventually("time passes", () => performance.now() - begun > (index + 1) * 200);
      client.send(letter);
    }
    const answer = await client.read({ until: (text) => text.endsWith("ok") });
    expect(answer.statuses).toEqual([200]);
  });

  test("is 504 when it does not take the request's body", async () => {
    const stuck = handUpstream((socket) => socket.pause());
    const gateway = await gatewayTo(start, stuck.address, "    timeouts: { response: 300ms }");
    const client = await openRaw(gateway.address);
    client.send("PUT /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
    client.send(Buffer.alloc(50_000_000));
    const answer = await client.read({ until: (text) => text.includes("\r\n\r\n") });
    expect(answer.statuses).toEqual([504]);
    client.kill();
  });
});

describeBoth("A broken answer", (start) => {
  const big = `HTTP/1.1 200 OK\r\nX: ${"x".repeat(70_000)}\r\n\r\n`;
  const broken: Record<string, string> = {
    "that is no HTTP": "SSH-2.0-OpenSSH_9\r\n\r\n",
    "of a future version": "HTTP/2.0 200 OK\r\n\r\n",
    "with a bare line feed": "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "with a folded line": "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "with NUL in a value": "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "with both lengths":
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "with two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "with a negative length": "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "with an unknown transfer encoding":
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "with an endless head": big,
    "with a 101 that nobody asked for":
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
  };

  test.each(Object.keys(broken))("%s is 502, once, and not a byte of it passes", async (name) => {
    const upstream = upstreamOf((_, write) => write(broken[name] ?? ""));
    const gateway = await gatewayTo(start, upstream.address);
    const { statuses, text } = await raw(gateway.address, get());
    expect(statuses).toEqual([502]);
    expect(reasonOf(text)).toBe("upstream_broken");
    expect(upstream.seen.length).toBe(1);
    await eventually("the upstream's connection ends", () => upstream.closedConnections === 1);
  });

  test("that ends inside its head is 502, for POST without a second try", async () => {
    const upstream = upstreamOf((_, write, close) => {
      write("HTTP/1.1 200 OK\r\nContent-");
      close();
    });
    const gateway = await gatewayTo(start, upstream.address);
    expect((await raw(gateway.address, get())).statuses).toEqual([502]);
    expect(
      (await raw(gateway.address, post(undefined, "x", "Connection: close\r\n"))).statuses,
    ).toEqual([502]);
    expect(upstream.seen.length).toBe(2);
  });

  const cuts: Record<string, string> = {
    "of known length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst",
    chunked: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
    "chunked and broken":
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nzz\r\n",
  };
  for (const how of ["closed", "reset"] as const) {
    test.each(Object.keys(cuts))(
      `a body %s that is ${how} in the middle reaches the client as far as it came, and cut`,
      async (name) => {
        const upstream = handUpstream((socket) => socket.write(cuts[name] ?? ""));
        const gateway = await gatewayTo(start, upstream.address);
        const client = await openRaw(gateway.address);
        client.send(get());
        await client.read({ until: (text) => text.includes("first") });
        if (how === "closed") upstream.sockets[0]?.end();
        else upstream.sockets[0]?.terminate();
        const answer = await client.read();
        expect(answer.closed).toBe(true);
        expect(bodyOf(answer.text)).toBe(name === "of known length" ? "first" : "5\r\nfirst\r\n");
        await eventually("the cut is logged", () =>
          gateway.events("http.access").some((event) => event.complete === false),
        );
      },
    );
  }

  test("a large body that is cut still reaches a slow client up to the cut", async () => {
    const size = 3_000_000;
    const upstream = upstreamOf((_, write, close) => {
      write(`HTTP/1.1 200 OK\r\nContent-Length: ${size + 1}\r\n\r\n`);
      write(Buffer.alloc(size, "c"));
      close();
    });
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.pause();
    client.send(get());
    await eventually("the upstream is asked", () => upstream.seen.length === 1);
    client.resume();
    const answer = await client.read();
    expect(bodyOf(answer.text).length).toBeLessThanOrEqual(size);
    expect(answer.closed).toBe(true);
  });
});

describeBoth("A body without framing", (start) => {
  const HEAD = "HTTP/1.1 200 OK\r\n\r\n";
  test("ends with the connection, and is whole for the client then", async () => {
    const upstream = upstreamOf((_, write, close) => {
      write(`${HEAD}all of it`);
      close();
    });
    const gateway = await gatewayTo(start, upstream.address);
    const { text } = await raw(gateway.address, get());
    expect(bodyOf(text)).toBe("9\r\nall of it\r\n0\r\n\r\n");
  });

  test("is cut for the client when the connection is reset", async () => {
    const upstream = handUpstream((socket) => socket.write(`${HEAD}a part`));
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send(get());
    await client.read({ until: (text) => text.includes("a part") });
    upstream.sockets[0]?.terminate();
    const answer = await client.read();
    expect(answer.closed).toBe(true);
    expect(bodyOf(answer.text)).toBe("6\r\na part\r\n");
  });

  test("is cut also when the request was still being sent at the reset", async () => {
    const upstream = handUpstream((socket) => {
      socket.write(`${HEAD}a part`);
    });
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n");
    await client.read({ until: (text) => text.includes("a part") });
    client.send(Buffer.alloc(1000));
    upstream.sockets[0]?.terminate();
    client.send(Buffer.alloc(1_000_000));
    const answer = await client.read();
    expect(answer.closed).toBe(true);
    expect(bodyOf(answer.text)).toBe("6\r\na part\r\n");
  });

  test("of an HTTP/1.0 upstream passes too", async () => {
    const upstream = upstreamOf((_, write, close) => {
      write("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nold");
      close();
    });
    const gateway = await gatewayTo(start, upstream.address);
    expect(bodyOf((await raw(gateway.address, get())).text)).toBe("3\r\nold\r\n0\r\n\r\n");
  });
});

describeBoth("Odd but honest answers", (start) => {
  test("interim answers before the final one are taken, however many", async () => {
    const upstream = upstreamOf((_, write) => {
      write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(20_000) + OK_RESPONSE);
    });
    const gateway = await gatewayTo(start, upstream.address);
    const { statuses, text } = await raw(gateway.address, get());
    expect(statuses).toEqual([200]);
    expect(bodyOf(text)).toBe("ok");
  });

  test("an empty chunked body is an empty body, and the connection is used again", async () => {
    const upstream = upstreamOf((_, write) =>
      write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    );
    const gateway = await gatewayTo(start, upstream.address);
    const { statuses } = await raw(gateway.address, get(undefined, "") + get());
    expect(statuses).toEqual([200, 200]);
    expect(upstream.connections).toBe(1);
  });

  test("bytes after a whole answer reach nobody, at once or later, and end that connection", async () => {
    const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    const upstream = upstreamOf((_, write) => write(OK_RESPONSE + evil));
    const gateway = await gatewayTo(start, upstream.address);
    const both = await raw(gateway.address, get(undefined, "") + get());
    expect(both.statuses).toEqual([200, 200]);
    expect(both.text).not.toContain("evil");
    expect(upstream.connections).toBe(2);
    const late = handUpstream((socket) => socket.write(OK_RESPONSE));
    const other = await gatewayTo(start, late.address);
    expect((await raw(other.address, get())).statuses).toEqual([200]);
    late.sockets[0]?.write(evil);
    await eventually("the connection ends", () => late.closed === 1);
    const next = await raw(other.address, get());
    expect(next.text).not.toContain("evil");
    expect(late.heads.length).toBe(2);
  });

  test("a 204 with a body gives the client none, and its connection is not used again", async () => {
    const upstream = upstreamOf((_, write) =>
      write("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n"),
    );
    const gateway = await gatewayTo(start, upstream.address);
    const { statuses, text } = await raw(gateway.address, get(undefined, "") + get());
    expect(statuses).toEqual([204, 204]);
    expect(text).not.toContain("Content-Length");
    expect(upstream.connections).toBe(2);
  });

  test("a 503 passes unchanged, once, and is told from ours by the reason that it lacks", async () => {
    const answer =
      "HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nX-Gatehouse-Reason: no_route\r\nContent-Length: 4\r\n\r\nbusy";
    const upstream = upstreamOf((_, write) => write(answer));
    const gateway = await gatewayTo(start, upstream.address);
    const { text } = await raw(gateway.address, get());
    expect(text).toStartWith("HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\n");
    expect(bodyOf(text)).toBe("busy");
    expect(reasonOf(text)).toBeUndefined();
    expect(upstream.seen.length).toBe(1);
  });
});

describeBoth("A kept connection that the upstream has closed", (start) => {
  /** Answers the first request of each connection; what happens to the second is up to the test. */
  function oneEach(second: (socket: Socket<{ text: string }>) => void) {
    const used = new Set<unknown>();
    const upstream = handUpstream((socket) => {
      if (used.has(socket)) second(socket);
      else {
        used.add(socket);
        socket.write(OK_RESPONSE);
      }
    });
    return upstream;
  }

  async function asked(gateway: GatewayUnderTest, request: string): Promise<number[]> {
    return [...(await raw(gateway.address, request)).statuses];
  }

  test("while idle is not used: the next POST goes on a fresh one", async () => {
    const upstream = oneEach((socket) => socket.terminate());
    const gateway = await gatewayTo(start, upstream.address);
    expect(await asked(gateway, get())).toEqual([200]);
    upstream.sockets[0]?.end();
    await eventually("the connection ends", () => upstream.closed === 1);
    expect(await asked(gateway, post(undefined, "x", "Connection: close\r\n"))).toEqual([200]);
    expect(upstream.heads.length).toBe(2);
  });

  test("at the very moment: GET is asked again once, POST, PUT and DELETE are 502 and sent once", async () => {
    const upstream = oneEach((socket) => socket.terminate());
    const gateway = await gatewayTo(start, upstream.address);
    expect(await asked(gateway, get())).toEqual([200]);
    expect(await asked(gateway, get("/public/again"))).toEqual([200]);
    expect(upstream.heads.map((head) => head.split(" ")[1])).toEqual([
      "/public/x",
      "/public/again",
      "/public/again",
    ]);
    for (const method of ["POST", "PUT", "DELETE"]) {
      const before = upstream.heads.length;
      expect(await asked(gateway, get("/public/warm"))).toEqual([200]);
      const warm = upstream.heads.length;
      // The warming GET may itself have met a dead connection and been repeated.
      expect(warm - before).toBeLessThanOrEqual(2);
      const request = `${method} /public/once HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
      expect(await asked(gateway, request)).toEqual([502]);
      expect(upstream.heads.length).toBe(warm + 1);
    }
  });

  test("after more than a second of idling gets no POST at all", async () => {
    const upstream = oneEach((socket) => socket.terminate());
    const gateway = await gatewayTo(start, upstream.address);
    expect(await asked(gateway, get())).toEqual([200]);
    const sinceMs = performance.now();
    await eventually("a second passes", () => performance.now() - sinceMs > 1100);
    expect(await asked(gateway, post(undefined, "x", "Connection: close\r\n"))).toEqual([200]);
    expect(upstream.sockets.length).toBe(2);
  });
});

describeBoth("A client that leaves", (start) => {
  test("before the answer ends the upstream's call at once", async () => {
    const upstream = upstreamOf(() => {});
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send(get());
    await eventually("the upstream is asked", () => upstream.seen.length === 1);
    client.kill();
    await eventually("the call ends", () => upstream.closedConnections === 1, 1000);
  });

  test("in the middle of its upload ends the upstream's call, and the body never looks whole", async () => {
    const upstream = upstreamOf(() => {});
    const gateway = await gatewayTo(start, upstream.address);
    const client = await openRaw(gateway.address);
    client.send(
      "POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    await eventually(
      "the first chunk arrives",
      () => upstream.seen[0]?.body.includes("abc") === true,
    );
    client.kill();
    await eventually("the call ends", () => upstream.closedConnections === 1, 1000);
    expect(upstream.seen[0]?.body).toBe("3\r\nabc\r\n");
  });

  test("while the rest of its answer is queued does not end the next client's call", async () => {
    const size = 8_000_000;
    let answerOther: (() => void) | null = null;
    const queue = new Map<unknown, Buffer>();
    const flush = (socket: Socket<{ text: string }>) => {
      const left = queue.get(socket);
      if (left === undefined) return;
      queue.set(socket, left.subarray(Math.max(0, socket.write(left))));
    };
    const upstream = handUpstream((socket, head) => {
      if (head.startsWith("GET /public/other")) answerOther = () => socket.write(OK_RESPONSE);
      else {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
        queue.set(socket, Buffer.alloc(size));
        flush(socket);
      }
    });
    const gateway = await gatewayTo(start, upstream.address);
    const slow: RawConnection = await openRaw(gateway.address);
    slow.send(get("/public/slow", ""));
    // The slow client takes just as much as lets the upstream finish.
    await eventually("the upstream has sent all", () => {
      for (const socket of upstream.sockets) flush(socket);
      if (slow.received > 0) slow.pause();
      if ((queue.get(upstream.sockets[0])?.length ?? 1) === 0) return true;
      slow.resume();
      return false;
    });
    const other = await openRaw(gateway.address);
    other.send(get("/public/other"));
    await eventually("the other client's call arrives", () => answerOther !== null);
    slow.kill();
    await eventually("the slow client is gone", () =>
      gateway.events("http.access").some((event) => event.path === "/public/slow"),
    );
    (answerOther as (() => void) | null)?.();
    expect((await other.read()).statuses).toEqual([200]);
  });
});
