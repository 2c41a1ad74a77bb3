/** `gatehouse doctor` about a Valkey: does it answer, keep what it is given, and let its user do the work. */
import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { bearerConfig, type Examined, household } from "../support/doctor.ts";
import { rawUpstream } from "../support/raw.ts";
import {
  startValkey,
  TEST_SALT,
  type TestValkey,
  until,
  valkeyMissing,
} from "../support/valkey.ts";

const upstream = rawUpstream();
const url = `http://${upstream.address}`;
const PASSWORD = "canary-valkey-0123456789abcdef";

/** A strategy on it; `more` are further settings. */
function examineOn(server: TestValkey, more = ""): Promise<Examined> {
  const settings = `use: valkey-hash, url: "${server.url}", salt: "\${env:SALT}"${more}`;
  const home = household(bearerConfig(url, { strategies: `  keys: { ${settings} }` }));
  return home.examine({ env: { SALT: TEST_SALT, PASSWORD } });
}

const WITH_PASSWORD = ', password: "${env:PASSWORD}"';
const AS_USER = `, username: gate${WITH_PASSWORD}`;
const SERVING = "+auth +ping +info +hmget +hget +pttl +client|id +client|tracking +subscribe";
const KEEPING = "+eval +exists +hset +hexists +pexpire +del +sadd +srem +smembers +scan +set +get";

describe.skipIf(valkeyMissing !== null)(`valkey ${valkeyMissing ?? ""}`, () => {
  test("one that can do the work is fine, and nothing is left in it", async () => {
    const server = await startValkey(["--appendonly", "yes"]);
    const client = server.client();
    await client.set("auth:token:mine", "x");
    const report = await examineOn(server);
    expect(report.codes("error")).toEqual([]);
    expect(report.find("valkey_works")?.severity).toBe("ok");
    expect(report.find("valkey_forgets")).toBeUndefined();
    expect(await client.keys("*")).toEqual(["auth:token:mine"]);
    expect(report.exitCode).toBe(0);
  });

  test("without a log of writes it forgets", async () => {
    const report = await examineOn(await startValkey());
    expect(report.find("valkey_forgets")?.next).toContain("appendonly yes");
    expect(report.exitCode).toBe(0);
  });

  test("one that throws keys away is an error, or a warning while it has no limit", async () => {
    const bounded = await startValkey([
      "--maxmemory",
      "100mb",
      "--maxmemory-policy",
      "allkeys-lru",
    ]);
    const report = await examineOn(bounded);
    expect(report.find("valkey_evicts")?.severity).toBe("error");
    expect(report.find("valkey_evicts")?.what).toContain("allkeys-lru");
    expect(report.find("valkey_works")).toBeUndefined();
    expect(report.exitCode).toBe(3);
    const endless = await startValkey(["--maxmemory-policy", "volatile-ttl"]);
    expect((await examineOn(endless)).find("valkey_evicts")?.severity).toBe("warning");
  });

  test("a full one cannot be written to", async () => {
    const server = await startValkey(["--maxmemory", "1"]);
    const report = await examineOn(server);
    expect(report.find("valkey_unwritable")?.what).toContain("out of memory");
    expect(report.exitCode).toBe(3);
  });

  test("one that cannot save says so", async () => {
    const server = await startValkey();
    const client = server.client();
    const [, dir = ""] = (await client.config("GET", "dir")) as string[];
    await client.set("auth:x", "1");
    rmSync(dir, { recursive: true });
    await client.bgsave();
    const hasFailed = async (): Promise<boolean> =>
      (await client.info("persistence")).includes("rdb_last_bgsave_status:err");
    await until(hasFailed);
    const report = await examineOn(server);
    expect(report.find("valkey_cannot_save")?.severity).toBe("error");
    expect(report.exitCode).toBe(3);
  });

  test("a replica is not the one to ask", async () => {
    const primary = await startValkey();
    const replica = await startValkey(["--replicaof", "127.0.0.1", String(primary.port)]);
    const report = await examineOn(replica);
    expect(report.find("valkey_replica")?.severity).toBe("error");
    expect((await examineOn(primary)).find("valkey_replica")).toBeUndefined();
  });

  test("a wrong password and nobody there are errors, and the password is not said", async () => {
    const server = await startValkey(["--requirepass", "another"]);
    const report = await examineOn(server, WITH_PASSWORD);
    expect(report.find("valkey_unusable")?.what).toContain("WRONGPASS");
    expect(report.text).not.toContain(PASSWORD);
    await server.stop();
    expect((await examineOn(server)).find("valkey_unusable")?.what).toContain("ECONNREFUSED");
  });

  test("rights that its user lacks are named as the rule that gives them", async () => {
    const server = await startValkey(["--appendonly", "yes"]);
    const client = server.client();
    const setUser = (rules: string) =>
      client.call(
        "ACL",
        "SETUSER",
        "gate",
        "reset",
        "on",
        `>${PASSWORD}`,
        "~auth:*",
        "&__redis__:invalidate",
        "-@all",
        ...rules.split(" "),
      );
    await setUser(`${SERVING} ${KEEPING}`);
    const whole = await examineOn(server, AS_USER);
    expect(whole.find("valkey_rights")).toBeUndefined();
    expect(whole.find("valkey_works")).toBeDefined();

    await setUser(`${SERVING} ${KEEPING} -sadd -del -hmget -client|tracking`);
    const partly = await examineOn(server, AS_USER);
    const missing = partly.findings.filter(({ code }) => code === "valkey_rights");
    expect(missing.map(({ what, severity }) => [severity, what.replace(/^.*: /, "")])).toEqual([
      ["error", "+hmget"],
      ["error", "+del +sadd"],
      ["warning", "+client|tracking"],
    ]);
    expect(partly.exitCode).toBe(3);

    await setUser(SERVING);
    const reading = await examineOn(server, AS_USER);
    expect(reading.find("valkey_rights")?.what).toContain("+eval");
    expect(reading.text).not.toContain(PASSWORD);
  });

  test("state that replicas share is looked at in the same way", async () => {
    const server = await startValkey(["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lfu"]);
    const home = household(bearerConfig(url, { top: `shared: { url: "${server.url}" }` }));
    const report = await home.examine();
    expect(report.find("valkey_evicts")?.what).toContain("shared: valkey at");
    const good = await startValkey(["--appendonly", "yes"]);
    const other = household(bearerConfig(url, { top: `shared: { url: "${good.url}" }` }));
    expect((await other.examine()).find("valkey_works")?.what).toContain("shared");
  });
});
