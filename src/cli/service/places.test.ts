/** What a configuration needs, where it is, and which places a service cannot have. */
import { describe, expect, test } from "bun:test";
import { SERVICE_CONFIG, serviceParts } from "../../../test/support/service.ts";
import { isBelow, lowPorts } from "./places.ts";

const problemsOf = async (...args: Parameters<typeof serviceParts>): Promise<string[]> =>
  (await serviceParts(...args)).places.problems.map(({ message }) => message);

const state = (dir: string): string => SERVICE_CONFIG.replace("/var/lib/gatehouse", dir);
const listen = (address: string): string => SERVICE_CONFIG.replace("127.0.0.1:8008", address);

describe("The needs of a configuration", () => {
  test("are its references, its files and its databases", async () => {
    const { needs } = await serviceParts(`version: 1
server:
  listen: 127.0.0.1:8008
  tls: { cert: ./cert.pem, key: /run/credentials/gatehouse.service/tls.key }
state_dir: /var/lib/gatehouse
strategies:
  ops: { use: static-env, env: OPS_TOKEN }
  file: { use: static-env, file: tokens }
  nostr: { use: nip98, database: /srv/routstr/routstr.db }
upstreams:
  api:
    url: https://127.0.0.1:9000
    ca: ca.pem
    headers: { authorization: "Bearer \${cred:api-key}", x-a: "\${env:A}\${file:secret}", x-b: "$\${env:NOT}", x-c: "\${toml:/srv/a/config.toml#b.c}" }
routes: [{ match: { path: /** }, access: [ops, file, nostr], upstream: api }]
`);
    expect(needs.credentials).toEqual(["api-key", "tls.key"]);
    expect(needs.hasCredentialPaths).toBe(true);
    expect(needs.variables).toEqual(["A", "OPS_TOKEN"]);
    expect(needs.files).toEqual([
      "/etc/gatehouse/ca.pem",
      "/etc/gatehouse/cert.pem",
      "/etc/gatehouse/secret",
      "/etc/gatehouse/tokens",
      "/srv/a/config.toml",
      "/srv/routstr/routstr.db",
    ]);
    expect(needs.databases).toEqual(["/srv/routstr"]);
    expect(needs.strategyCount).toBe(3);
  });

  test("low ports are those from 1 to 1023", () => {
    const tcp = (port: number) => ({ kind: "tcp" as const, host: "::", port });
    const unix = { kind: "unix" as const, path: "/run/x" };
    expect(lowPorts([tcp(0), tcp(1), tcp(443), tcp(1023), tcp(1024), unix])).toEqual([
      1, 443, 1023,
    ]);
  });
});

describe("The places of a service", () => {
  test("are fine as they are recommended", async () => {
    expect(await problemsOf()).toEqual([]);
    expect(await problemsOf(listen("unix:/run/gatehouse/g.sock"))).toEqual([]);
    expect(await problemsOf(state("/var/lib/gatehouse/state"))).toEqual([]);
    expect(await problemsOf(state("/srv/state"), { account: "gate" })).toEqual([]);
    expect(await problemsOf(SERVICE_CONFIG, { config: "/home/a/config.yaml" })).toEqual([]);
  });

  test.each([
    ["/srv/state", "an account that systemd makes cannot own state_dir /srv/state"],
    ["./state", "an account that systemd makes cannot own state_dir /etc/gatehouse/state"],
    ["/home/a/state", "state_dir /home/a/state is in a home directory, hidden from services"],
    ["/root", "state_dir /root is in a home directory, hidden from services"],
    ["/var/lib/private/x", "an account that systemd makes cannot own state_dir /var/lib/private/x"],
  ])("cannot have its state in %s with an account that systemd makes", async (dir, problem) => {
    expect(await problemsOf(state(dir))).toContain(problem);
  });

  test("cannot have its state where it is emptied, whoever runs it", async () => {
    const account = { account: "gate" };
    const [gone] = await problemsOf(state("/run/gatehouse/state"), account);
    expect(gone).toContain("is emptied at every start of the machine");
    for (const dir of ["/tmp/state", "/var/tmp/state", "/dev/shm/state"]) {
      const [temporary] = await problemsOf(state(dir), account);
      expect(temporary).toContain("temporary directory");
    }
  });

  test("do not take over the directory of another service", async () => {
    const problems = await problemsOf(listen("unix:/run/nginx/g.sock"), { account: "gate" });
    expect(problems).toEqual(["/run/nginx is not this service's own directory"]);
    expect(await problemsOf(listen("unix:/run/g.sock"))).toEqual([
      "/run is not this service's own directory",
    ]);
    expect(await problemsOf(listen("unix:/srv/g/g.sock"))).toEqual([
      "an account that systemd makes cannot write to /srv/g",
    ]);
    const { places } = await serviceParts(listen("unix:/srv/g/g.sock"), { account: "gate" });
    expect(places.readWrite).toEqual(["/srv/g"]);
  });

  test("open the directory of a database that is shared, for an account that may", async () => {
    const text = SERVICE_CONFIG.replace("use: bearer-sqlite", "use: nip98, database: /srv/r/r.db");
    expect(await problemsOf(text)).toEqual([
      "an account that systemd makes cannot write to /srv/r",
    ]);
    const { places } = await serviceParts(text, { account: "routstr" });
    expect(places).toMatchObject({ readWrite: ["/srv/r"], problems: [] });
    const inHome = text.replace("/srv/r/", "/home/routstr/.routstrd/");
    const { places: home } = await serviceParts(inHome, { account: "routstr" });
    expect(home).toMatchObject({ readWrite: [], homeReadWrite: ["/home/routstr/.routstrd"] });
    // The file lies in the directory that is opened already.
    expect(home.homeReadOnly).toEqual([]);
  });

  test("are not where the executable or a file is hidden or temporary", async () => {
    const [hidden] = await problemsOf(SERVICE_CONFIG, { exec: "/home/a/gatehouse" });
    expect(hidden).toContain("/home/a/gatehouse is in a home directory");
    const [gone] = await problemsOf(SERVICE_CONFIG, { config: "/tmp/x/config.yaml" });
    expect(gone).toContain("/tmp/x/config.yaml is in a temporary directory");
    const ca = SERVICE_CONFIG.replace('"http:', '"https:').replace(
      '9000"',
      '9000", ca: "/srv/a;b"',
    );
    expect((await problemsOf(ca))[0]).toContain("a unit file cannot express");
  });

  test("a directory is below itself and its parents, not below its namesakes", () => {
    expect(isBelow("/home", "/home")).toBe(true);
    expect(isBelow("/home/a", "/home")).toBe(true);
    expect(isBelow("/homes/a", "/home")).toBe(false);
  });
});
