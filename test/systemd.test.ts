/**
 * The service on a systemd that was really booted: what the unit claims, what init makes of it, and what is left at the
 * end.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { binaryPath } from "./support/binary.ts";
import { type BootedSystemd, bootSystemd, NO_BOOTED_SYSTEMD } from "./support/booted-systemd.ts";

if (NO_BOOTED_SYSTEMD !== null) {
  process.stderr.write(`booted systemd: skipped, ${NO_BOOTED_SYSTEMD}\n`);
}

const CONFIG = `version: 1
server: { listen: 127.0.0.1:8008 }
state_dir: /var/lib/gatehouse
strategies: { team: { use: bearer-sqlite } }
upstreams: { api: { url: http://127.0.0.1:9 } }
routes:
  - { match: { path: /a }, access: [team], upstream: api }
`;
const UPSTREAM = `Bun.serve({ hostname: "127.0.0.1", port: 9000, fetch: () => new Response("from behind") })`;
const STATUS = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8008";

describe.skipIf(NO_BOOTED_SYSTEMD !== null)("A booted systemd", () => {
  let machine: BootedSystemd;
  beforeAll(async () => {
    machine = await bootSystemd(await binaryPath());
  }, 90_000);
  afterAll(() => machine?.stop());

  async function ok(command: string): Promise<string> {
    const { code, text } = await machine.run(command);
    if (code !== 0) throw new Error(`${command}: exit ${code}\n${text}`);
    return text;
  }
  const shown = (property: string) =>
    ok(`systemctl show gatehouse --value -p ${property}`).then((text) => text.trim());

  test("runs the service in its sandbox, reloads it, and keeps it when a reload is refused", async () => {
    await ok(`mkdir -p /etc/gatehouse && cat > /etc/gatehouse/config.yaml <<'END'\n${CONFIG}END`);
    const installed = await ok("gatehouse service install -c /etc/gatehouse/config.yaml");
    expect(installed).toContain("gatehouse is active: 1 route, 1 strategy (team)");
    const pid = await shown("MainPID");
    expect(await ok(`${STATUS}/b`)).toBe("404");

    await ok("sed -i 's#/a }#/b }#' /etc/gatehouse/config.yaml && systemctl reload gatehouse");
    expect(await ok(`${STATUS}/b`)).toBe("401");
    expect(await ok(`${STATUS}/a`)).toBe("404");

    await ok("sed -i 's#access:#acces:#' /etc/gatehouse/config.yaml");
    expect((await machine.run("systemctl reload gatehouse")).code).not.toBe(0);
    expect(await shown("StatusText")).toStartWith("reload refused (see the log), still 1 route");
    expect(await ok(`${STATUS}/b`)).toBe("401");

    await ok("sed -i 's#acces:#access:#' /etc/gatehouse/config.yaml");
    await ok("systemctl kill --signal HUP --kill-who main gatehouse");
    expect(await ok("gatehouse reload -c /etc/gatehouse/config.yaml")).toContain(
      "reloaded: 1 route",
    );
    expect(await shown("ActiveState")).toBe("active");
    expect(await shown("NRestarts")).toBe("0");
    // It was the same process all along.
    expect(await shown("MainPID")).toBe(pid);
    expect(await ok("gatehouse service status")).toContain("is enabled and active");

    await ok(
      "gatehouse service uninstall && rm -r /etc/gatehouse /var/lib/gatehouse /var/lib/private/gatehouse",
    );
    expect((await machine.run("systemctl is-active gatehouse")).text).toBe("inactive\n");
  }, 60_000);

  test("is set up by init in one command, found in order by doctor, and cleared by undo", async () => {
    const before = await ok("ls -A /etc /var/lib /etc/systemd/system");
    const server = machine.inNetwork(process.execPath, "-e", UPSTREAM);
    await ok("for i in $(seq 200); do curl -sf http://127.0.0.1:9000/ && break; sleep 0.05; done");
    const made = JSON.parse(
      await ok(
        "gatehouse init --yes --upstream http://127.0.0.1:9000 --listen 127.0.0.1:8008 --json 2>/dev/null",
      ),
    ) as { token: string; grade: string; service: { name: string } };
    expect(made.service.name).toBe("gatehouse");
    expect(await shown("ActiveState")).toBe("active");
    expect(await ok(`${STATUS}/x`)).toBe("401");
    const asked = `curl -s http://127.0.0.1:8008/x -H 'Authorization: Bearer ${made.token}'`;
    expect(await ok(asked)).toBe("from behind");
    expect(made.grade).toBe("A");
    const doctor = await machine.run("gatehouse doctor -c /etc/gatehouse/config.yaml");
    expect(doctor.text).not.toContain("error:");
    expect(doctor.code).toBe(0);
    await ok("gatehouse init --undo --yes");
    server.kill();
    expect(await ok("ls -A /etc /var/lib /etc/systemd/system")).toBe(before);
  }, 60_000);
});
