/** State directory, certificates and listeners: what others could read, swap or take is refused. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { document, problemsOf, tempDir } from "../../test/support/config.ts";
import {
  A_KEY,
  ENCRYPTED_KEY,
  EXPIRED_CERTIFICATE,
  FUTURE_CERTIFICATE,
  GOOD_CERTIFICATE,
  OTHER_KEY,
} from "../../test/support/tls-fixtures.ts";
import { checkStateDir } from "./check-files.ts";
import { createReporter } from "./issues.ts";

const directory = tempDir();
afterAll(directory.remove);
const cwd = directory.path;
directory.write("cert.pem", GOOD_CERTIFICATE, 0o644);
directory.write("old.pem", EXPIRED_CERTIFICATE);
directory.write("new.pem", FUTURE_CERTIFICATE);
directory.write("key.pem", A_KEY);
directory.write("other.pem", OTHER_KEY);
directory.write("locked.pem", ENCRYPTED_KEY);
directory.write("text.pem", "not a certificate");
chmodSync(directory.write("group.pem", A_KEY), 0o660);
chmodSync(directory.write("shared.pem", A_KEY), 0o640);
chmodSync(directory.write("world.pem", A_KEY), 0o604);

function madeDirectory(name: string, mode: number): string {
  const path = join(cwd, name);
  mkdirSync(path);
  chmodSync(path, mode);
  return path;
}

describe("state_dir", () => {
  test("that does not exist yet is fine, and is not made", async () => {
    expect(await problemsOf(document("state_dir: ./later"), { cwd })).toEqual([]);
    expect(() => statSync(join(cwd, "later"))).toThrow();
  });

  test("with mode 0700 is fine", async () => {
    madeDirectory("closed", 0o700);
    expect(await problemsOf(document("state_dir: closed"), { cwd })).toEqual([]);
  });

  test.each([0o701, 0o750, 0o755, 0o770, 0o704, 0o710])(
    "with mode %o is refused with the command that mends it",
    async (mode) => {
      const path = madeDirectory(`open-${mode.toString(8)}`, mode);
      expect(await problemsOf(document(`state_dir: ${path}`), { cwd })).toEqual([
        `state_dir: ${path} is open to other users (mode ${mode.toString(8)})`,
      ]);
    },
  );

  test("that is a file is refused", async () => {
    expect(await problemsOf(document("state_dir: ./cert.pem"), { cwd })).toEqual([
      `state_dir: ${cwd}/cert.pem is not a directory`,
    ]);
  });

  test("of another user is refused, unless we are root", () => {
    const path = madeDirectory("theirs", 0o700);
    const problems = (user: number) => {
      const report = createReporter(() => ({ line: 1, column: 1, origin: null }));
      checkStateDir(path, report, user);
      return report.list().map(({ message }) => message);
    };
    const { uid } = statSync(path);
    expect(problems(uid)).toEqual([]);
    expect(problems(0)).toEqual([]);
    expect(problems(uid + 1)).toEqual([
      `${path} belongs to another user (uid ${uid}, this is uid ${uid + 1})`,
    ]);
  });
});

describe("tls", () => {
  const tls = (pairs: string) => problemsOf(document(`server: { tls: ${pairs} }`), { cwd });

  test("with a valid certificate and its closed key is fine", async () => {
    expect(await tls("{ cert: cert.pem, key: key.pem }")).toEqual([]);
    expect(await tls("{ cert: cert.pem, key: shared.pem }")).toEqual([]);
  });

  test.each([
    ["nope.pem", "key.pem", `server.tls.cert: ${cwd}/nope.pem does not exist`],
    ["cert.pem", "nope.pem", `server.tls.key: ${cwd}/nope.pem does not exist`],
    ["text.pem", "key.pem", `server.tls.cert: ${cwd}/text.pem holds no PEM certificate`],
    ["cert.pem", "text.pem", `server.tls.key: ${cwd}/text.pem holds no usable PEM private key`],
    ["cert.pem", "locked.pem", `server.tls.key: ${cwd}/locked.pem holds no usable PEM private key`],
    ["cert.pem", "other.pem", "server.tls.key: this key does not belong to the certificate"],
    ["cert.pem", "group.pem", `server.tls.key: ${cwd}/group.pem is open to other users (mode 660)`],
    ["cert.pem", "world.pem", `server.tls.key: ${cwd}/world.pem is open to other users (mode 604)`],
    ["old.pem", "key.pem", "server.tls.cert: the certificate expired on Jan  1 00:00:00 2001 GMT"],
    [
      "new.pem",
      "key.pem",
      "server.tls.cert: the certificate is not valid before Jan  1 00:00:00 2110 GMT",
    ],
  ])("with certificate %s and key %s is refused: %s", async (cert, key, problem) => {
    expect(await tls(`{ cert: ${cert}, key: ${key} }`)).toEqual([problem]);
  });

  test("with two pairs for one name is refused at the second", async () => {
    const pair = (name: string) => `{ cert: cert.pem, key: key.pem${name} }`;
    expect(await tls(`[${pair(", name: a.example.com")}, ${pair("")}]`)).toEqual([]);
    expect(await tls(`[${pair("")}, ${pair("")}]`)).toEqual([
      "server.tls[1]: a second pair without name",
    ]);
    expect(await tls(`[${pair(", name: A.x")}, ${pair(", name: a.x")}]`)).toEqual([
      "server.tls[1]: this name has a pair already",
    ]);
  });
});

describe("ca", () => {
  const upstream = (url: string, ca: string) =>
    problemsOf(document(`upstreams: { api: { url: "${url}", ca: ${ca} } }`), { cwd });

  test("of an https upstream must be readable certificates", async () => {
    expect(await upstream("https://x", "cert.pem")).toEqual([]);
    expect(await upstream("https://x", "nope.pem")).toEqual([
      `upstreams.api.ca: ${cwd}/nope.pem does not exist`,
    ]);
    expect(await upstream("https://x", "text.pem")).toEqual([
      `upstreams.api.ca: ${cwd}/text.pem holds no PEM certificate`,
    ]);
  });

  test("of an upstream without TLS is refused, because it would never be used", async () => {
    expect(await upstream("http://x", "cert.pem")).toEqual([
      "upstreams.api.ca: only an https upstream has certificates to check",
    ]);
  });
});

describe("listeners", () => {
  const listen = (list: string) => problemsOf(document(`server: { listen: [${list}] }`));

  test.each([
    ['"127.0.0.1:80", "127.0.0.1:80"'],
    ['"0.0.0.0:80", "127.0.0.1:80"'],
    ['"[::1]:80", "[::]:80"'],
    ["unix:/run/x.sock, unix:/run/x.sock"],
  ])("%s collide", async (list) => {
    expect(await listen(list)).toEqual(["server.listen[1]: the same address as server.listen[0]"]);
  });

  test.each([
    ['"127.0.0.1:80", "127.0.0.1:81"'],
    ['"127.0.0.1:0", "127.0.0.1:0"'],
    ['"127.0.0.1:80", "[::1]:80"'],
    ['"127.0.0.1:80", "127.0.0.2:80"'],
    ["unix:/run/x.sock, unix:/run/y.sock"],
  ])("%s do not collide", async (list) => {
    expect(await listen(list)).toEqual([]);
  });
});
