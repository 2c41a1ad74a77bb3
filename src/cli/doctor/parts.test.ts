/** The pure parts of `doctor`: what is read out of the kernel's texts, and how findings are worded and written. */
import { describe, expect, test } from "bun:test";
import { bindAdvice } from "./bind-advice.ts";
import { keeperFindings } from "./check-clock.ts";
import { hasCompiler } from "./check-jit.ts";
import { kindFindings } from "./check-room.ts";
import { countFindings, error, type GroupedFinding, info, ok, someOf, warning } from "./finding.ts";
import { isLoopbackHost, isPrivateNetwork, reachOf } from "./networks.ts";
import { canonicalAddress, parseListeners } from "./proc-net.ts";
import { skewOf } from "./reach.ts";
import { countsText, layoutOf, renderFindings } from "./report.ts";
import { deniedIn, rightsQuestion, ruleName } from "./valkey-rights.ts";

const HEAD =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

describe("/proc/net/tcp", () => {
  test("listening sockets with their addresses, and nothing else", () => {
    const text = `${HEAD}   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 00000000:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:ABCD 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
not a line
`;
    expect(parseListeners(text)).toEqual([
      { address: "127.0.0.1", port: 8080, inode: "11" },
      { address: "0.0.0.0", port: 11434, inode: "12" },
    ]);
  });

  test.each([
    ["00000000000000000000000000000000", "::"],
    ["00000000000000000000000001000000", "::1"],
    ["0000000000000000FFFF00000100007F", "127.0.0.1"],
    ["000000FD000000000000000002000000", "fd00::2"],
  ])("tcp6: %s is %s", (hex, address) => {
    const text = `${HEAD} 0: ${hex}:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 7 1\n`;
    expect(parseListeners(text)).toEqual([{ address, port: 80, inode: "7" }]);
  });

  test("one spelling for each address", () => {
    expect(canonicalAddress("FD00:0:0::2")).toBe("fd00::2");
    expect(canonicalAddress("fe80::1%eth0")).toBe("fe80::1");
    expect(canonicalAddress("LocalHost")).toBe("localhost");
  });
});

describe("networks", () => {
  test.each([
    ["0.0.0.0", "wildcard"],
    ["::", "wildcard"],
    ["127.8.0.1", "loopback"],
    ["::1", "loopback"],
    ["10.1.2.3", "private"],
    ["172.31.0.1", "private"],
    ["172.32.0.1", "public"],
    ["100.64.0.1", "private"],
    ["fd12::1", "private"],
    ["2001:db8::1", "public"],
    ["example.com", "public"],
  ] as const)("%s is %s", (address, reach) => expect(reachOf(address)).toBe(reach));

  test.each([
    ["10.0.0.0/8", true],
    ["10.0.0.0/7", false],
    ["192.168.1.0/24", true],
    ["127.0.0.1/32", true],
    ["203.0.113.0/24", false],
    ["fc00::/7", true],
    ["2001:db8::/32", false],
  ])("%s private: %p", (cidr, isPrivate) => expect(isPrivateNetwork(cidr)).toBe(isPrivate));

  test("names of this machine", () => {
    expect(["localhost", "a.localhost.", "127.0.0.2", "::1"].every(isLoopbackHost)).toBe(true);
    expect(["example.com", "10.0.0.1", "localhost.example.com"].some(isLoopbackHost)).toBe(false);
  });
});

describe("what stands for what", () => {
  const owner = (name: string, ...argv: string[]) => ({ pid: 1, name, argv });

  test.each([
    [owner("ollama", "/usr/bin/ollama", "serve"), "OLLAMA_HOST=127.0.0.1:11434"],
    [owner("python3", "python3", "-m", "vllm.entrypoints.openai.api_server"), "--host 127.0.0.1"],
    [owner("llama-server", "./llama-server"), "--host 127.0.0.1"],
    [owner("docker-proxy", "/usr/bin/docker-proxy"), "127.0.0.1:11434:11434"],
    [owner("python3", "python3", "-m", "http.server"), "--bind 127.0.0.1"],
    [owner("myserver"), "ufw deny 11434/tcp"],
    [null, "ss -ltnp"],
  ])("a program is told how: %#", (process, advice) =>
    expect(bindAdvice(process, 11_434)).toContain(advice),
  );

  test("memory of a compiler is anonymous, writable and executable", () => {
    const library = "7f00-7f01 r-xp 00000000 fe:00 12 /usr/lib/libc.so.6";
    const file = "7f00-7f01 rwxp 00000000 fe:00 12 /tmp/file";
    const own = "7f37f7957000-7f3837957000 rwxp 00000000 00:00 0 ";
    expect(hasCompiler(`${library}\n${file}\n`)).toBe(false);
    expect(hasCompiler(`${library}\n${own}\n`)).toBe(true);
    expect(hasCompiler("7f00-7f01 rwxp 00000000 00:00 0 [anon:JIT]")).toBe(true);
  });

  test("a date is compared with the middle of the time that the answer took", () => {
    const at = Date.parse("2026-01-01T00:00:10Z");
    const head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:10 GMT\r\n\r\n";
    expect(skewOf(head, at + 400, at + 600)).toBe(0);
    expect(skewOf(head, at + 60_400, at + 60_600)).toBe(-60_000);
    expect(skewOf("HTTP/1.1 200 OK\r\n\r\n", at, at)).toBeNull();
    expect(skewOf("HTTP/1.1 200 OK\r\nDate: soon\r\n\r\n", at, at)).toBeNull();
  });

  test("a clock that nobody keeps is worse where credentials have times", () => {
    const of = (kept: boolean | null, isTimed: boolean) =>
      keeperFindings(kept, isTimed).map(({ code, severity }) => [code, severity]);
    expect(of(true, true)).toEqual([["clock_kept", "ok"]]);
    expect(of(false, true)).toEqual([["clock_unkept", "warning"]]);
    expect(of(false, false)).toEqual([["clock_unkept", "info"]]);
    expect(of(null, true)).toEqual([["clock_unknown", "info"]]);
  });

  test.each([
    ["ext4", undefined],
    ["nfs4", "disk_network"],
    ["cifs", "disk_network"],
    ["fuse.sshfs", "disk_network"],
    ["tmpfs", "disk_fleeting"],
    [null, undefined],
  ])("a state on %s: %s", (kind, code) => expect(kindFindings("/x", kind)[0]?.code).toBe(code));

  test("rights of a user of Valkey are asked as one list and answered by number", () => {
    const commands = [
      ["get", "KEY"],
      ["client", "id"],
      ["set", "KEY", "a"],
    ] as const;
    const question = rightsQuestion("auth:x", commands);
    expect(question.slice(2)).toEqual(["1", "auth:x", "get\tKEY", "client\tid", "set\tKEY\ta"]);
    expect(deniedIn([2, 3], commands)?.map(ruleName)).toEqual(["+client|id", "+set"]);
    expect(deniedIn("OK", commands)).toBeNull();
  });
});

describe("the report", () => {
  const findings: readonly GroupedFinding[] = [
    { group: "One", ...ok("fine", "all is well") },
    {
      group: "One",
      ...info("note", "a remark that is long enough to be broken into several lines"),
    },
    {
      group: "Two",
      ...error("bad", "it is\u001b[31m broken\nhere", {
        why: "because of something that takes a whole sentence to explain",
        next: "first this, then `a command --with options` and be done",
      }),
    },
    { group: "Two", ...warning("so", "so", { why: "w", next: "n" }) },
  ];

  test("breaks lines between words, never inside back quotes, and lets nothing move the cursor", () => {
    const text = renderFindings(findings, { width: 40, isColoured: false });
    expect(text).toBe(`One
  ok: all is well
  info: a remark that is long enough to
    be broken into several lines

Two
  error: it is\ufffd[31m broken here
    why: because of something that takes
      a whole sentence to explain
    mend: first this, then
      \`a command --with options\` and be
      done
  warning: so
    why: w
    mend: n
`);
  });

  test("colours only on a terminal, and never with NO_COLOR, --no-color or a dumb one", () => {
    const facts = { stdoutIsTerminal: true, env: {}, columns: 80, color: undefined };
    expect(layoutOf(facts).isColoured).toBe(true);
    expect(renderFindings(findings, layoutOf(facts))).toContain(
      "\u001b[1;31merror\u001b[0m: it is",
    );
    for (const other of [
      { ...facts, stdoutIsTerminal: false },
      { ...facts, env: { NO_COLOR: "1" } },
      { ...facts, env: { TERM: "dumb" } },
      { ...facts, color: false },
    ]) {
      expect(layoutOf(other).isColoured).toBe(false);
    }
    expect(layoutOf({ ...facts, env: { NO_COLOR: "" } }).isColoured).toBe(true);
  });

  test("the width is the terminal's, else COLUMNS, else 80, within reason", () => {
    const width = (columns: number | undefined, env = {}) =>
      layoutOf({ stdoutIsTerminal: true, env, columns, color: undefined }).width;
    expect([
      width(40),
      width(undefined, { COLUMNS: "50" }),
      width(undefined),
      width(5),
      width(900),
    ]).toEqual([40, 50, 80, 24, 110]);
  });

  test("counts in words", () => {
    expect(countsText(countFindings(findings))).toBe("1 error, 1 warning, 1 remark");
    expect(countsText(countFindings([]))).toBe("nothing is wrong");
    expect(someOf(["a", "b", "c"], 2)).toBe("a, b and 1 more");
  });
});
