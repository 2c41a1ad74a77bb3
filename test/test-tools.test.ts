/**
 * What `npm test` does about programs that tests start and the machine does not have, on a made-up machine: a root
 * directory of its own and an apt that is a shell script.
 *
 * Invariant: nothing outside the made-up machine is read or written.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

interface Where {
  readonly root: string;
  readonly directories: readonly string[];
  readonly apt: { readonly get: string; readonly cache: string };
  readonly isRoot: boolean;
  readonly deadlineMs?: number;
  say(line: string): void;
}

/** Plain JavaScript without types, which is why it is asked for by a computed name. */
const tools = (await import(join(import.meta.dir, "..", "scripts", "test-tools.mjs"))) as {
  ensureTools(where: Where): Promise<void>;
  backportsSource(texts: readonly string[], codename: string): string | null;
};

let machine: string;
let said: string[];
const at = (name: string): string => join(machine, name);

beforeEach(() => {
  machine = mkdtempSync(join(tmpdir(), "gatehouse-machine-"));
  said = [];
  write("etc/os-release", 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian"\n');
  write("etc/apt/sources.list.d/debian.sources", DEBIAN);
  mkdirSync(at("usr/sbin"), { recursive: true });
});
afterEach(() => rmSync(machine, { recursive: true, force: true }));

const DEBIAN = `Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

function write(name: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(at(name)), { recursive: true });
  writeFileSync(at(name), text, { mode });
  chmodSync(at(name), mode);
}

/** An apt that knows some packages, notes what it is asked, and brings programs. */
function layApt(known: Readonly<Record<string, string>>, install = ""): void {
  const policy = Object.keys(known).map((name) => `echo '${name}:'; echo '  Candidate: 1.0'`);
  write("bin/apt-cache", `#!/bin/sh\n${policy.join("\n")}\n`, 0o755);
  const brought = Object.entries(known).map(
    ([name, program]) =>
      `case "$*" in *${name}*) printf '#!/bin/sh\\n' > ${at("bin")}/${program}; chmod 755 ${at("bin")}/${program};; esac`,
  );
  write(
    "bin/apt-get",
    `#!/bin/sh
echo "$*" >> ${at("asked")}
case "$*" in
  *--download-only*|*update*) cat ${at("usr/sbin/policy-rc.d")} >> ${at("policy")}; exit 0;;
esac
${install}
${brought.join("\n")}
`,
    0o755,
  );
}

function ensure(more: Partial<Where> = {}): Promise<void> {
  return tools.ensureTools({
    root: machine,
    directories: [at("bin")],
    apt: { get: at("bin/apt-get"), cache: at("bin/apt-cache") },
    isRoot: true,
    say: (line) => void said.push(line),
    ...more,
  });
}

const asked = (): string => (existsSync(at("asked")) ? readFileSync(at("asked"), "utf8") : "");
const leftBehind = (): string[] =>
  readdirSync(tmpdir()).filter((name) => name.startsWith("gatehouse-apt-"));

describe("programs that tests start", () => {
  test("are left alone when all are there", async () => {
    layApt({});
    for (const name of ["nginx", "caddy", "haproxy", "redis-server"])
      write(`bin/${name}`, "", 0o755);
    await ensure();
    expect([said, asked()]).toEqual([[], ""]);
  });

  test("are installed, without starting anything or touching apt's configuration", async () => {
    layApt({
      "nginx-light": "nginx",
      caddy: "caddy",
      haproxy: "haproxy",
      "valkey-server": "valkey-server",
    });
    const before = leftBehind();
    await ensure();
    expect(said).toEqual(["installing for tests: nginx, Caddy, HAProxy, Valkey"]);
    const last = asked().trim().split("\n").at(-1) ?? "";
    expect(last).toEndWith(
      "install -y --no-install-recommends nginx-light caddy haproxy valkey-server",
    );
    expect(last).toMatch(
      /-o Dir::Etc::sourceparts=\/\S+ -o Dir::State::lists=\/\S+ -o Dir::Cache=/,
    );
    // Asked by maintainer scripts before they start something.
    expect(readFileSync(at("policy"), "utf8")).toContain("exit 101");
    expect(existsSync(at("usr/sbin/policy-rc.d"))).toBe(false);
    expect(readFileSync(at("etc/apt/sources.list.d/debian.sources"), "utf8")).toBe(DEBIAN);
    expect(readdirSync(at("etc/apt/sources.list.d"))).toEqual(["debian.sources"]);
    expect(leftBehind()).toEqual(before);
  });

  test("a policy for services that is there is there again, also when the install fails", async () => {
    layApt({ "nginx-light": "nginx" }, "echo 'E: no space left'; exit 100");
    write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n", 0o750);
    await ensure();
    expect(readFileSync(at("usr/sbin/policy-rc.d"), "utf8")).toBe("#!/bin/sh\nexit 0\n");
    expect(statSync(at("usr/sbin/policy-rc.d")).mode & 0o777).toBe(0o750);
    expect(said).toContain("the install of test programs stopped: E: no space left");
    expect(said).toContain("no nginx: tests with it are skipped; run apt-get install nginx-light");
  });

  test("what no package brings is named, with the package", async () => {
    layApt({ nginx: "nginx" });
    await ensure();
    expect(said.slice(1)).toEqual([
      "no Caddy: tests with it are skipped; run apt-get install caddy",
      "no HAProxy: tests with it are skipped; run apt-get install haproxy",
      "no Valkey: tests with it are skipped; run apt-get install valkey-server (from bookworm-backports)",
    ]);
  });

  test.each([
    ["somebody else than root", { isRoot: false }, "ID=debian\n"],
    ["another system", {}, "ID=fedora\n"],
    ["a deadline that is over", { deadlineMs: 0 }, "ID=debian\n"],
  ])("%s gets to know what to install, and nothing else happens", async (_, more, release) => {
    layApt({ caddy: "caddy" });
    write("etc/os-release", release);
    await ensure(more);
    expect(asked()).toBe("");
    expect(said.filter((line) => line.startsWith("no "))).toHaveLength(4);
    expect(existsSync(at("usr/sbin/policy-rc.d"))).toBe(false);
  });
});

describe("the source of backports", () => {
  test("is the mirror that the machine has, with its key", () => {
    expect(tools.backportsSource(["", DEBIAN], "bookworm")).toBe(`Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`);
    const line = "deb [arch=amd64 signed-by=/k.gpg] https://m.example/d bookworm main contrib\n";
    expect(tools.backportsSource([line], "bookworm")).toBe(
      "Types: deb\nURIs: https://m.example/d\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n",
    );
  });

  test("is none where there is no mirror of the release, or backports are there", () => {
    expect(tools.backportsSource([""], "bookworm")).toBeNull();
    expect(tools.backportsSource([DEBIAN], "trixie")).toBeNull();
    const own = "deb http://m.example/d bookworm-backports main\n";
    expect(tools.backportsSource([DEBIAN, own], "bookworm")).toBeNull();
  });
});
