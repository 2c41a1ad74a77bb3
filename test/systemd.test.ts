/**
 * The service on a systemd that was really booted: what the unit claims, what init makes of it, and what is left at the
 * end.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { binaryPath } from "./support/binary.ts";
import { bootSystemd } from "./support/booted-systemd.ts";

const boot = await bootSystemd(await binaryPath());
if ("reason" in boot) process.stderr.write(`booted systemd: skipped, ${boot.reason}\n`);

const CONFIG = `version: 1
server: { listen: 127.0.0.1:8008 }
state_dir: /var/lib/gatehouse
strategies: { team: { use: bearer-sqlite } }
upstreams: { api: { url: http://127.0.0.1:9 } }
routes:
  - { match: { path: /a }, access: [team], upstream: api }
`;
const GATE = "http://127.0.0.1:8008";

describe.skipIf("reason" in boot)("A booted systemd", () => {
  const machine = "machine" in boot ? boot.machine : null;
  afterAll(() => machine?.stop());

  const run = (command: string) =>
    machine?.run(command) ?? Promise.reject(new Error("nothing was booted"));
  const statusOf = async (path: string) => (await machine?.ask(`${GATE}${path}`))?.slice(0, 3);
  async function ok(command: string): Promise<string> {
    const { code, text } = await run(command);
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
    expect(await statusOf("/b")).toBe("404");

    await ok("sed -i 's#/a }#/b }#' /etc/gatehouse/config.yaml && systemctl reload gatehouse");
    expect(await statusOf("/b")).toBe("401");
    expect(await statusOf("/a")).toBe("404");

    await ok("sed -i 's#access:#acces:#' /etc/gatehouse/config.yaml");
    expect((await run("systemctl reload gatehouse")).code).not.toBe(0);
    expect(await shown("StatusText")).toStartWith("reload refused (see the log), still 1 route");
    expect(await statusOf("/b")).toBe("401");

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
    expect((await run("systemctl is-active gatehouse")).text).toBe("inactive\n");
  }, 60_000);

  test("is set up by init in one command, found in order by doctor, and cleared by undo", async () => {
    const before = await ok("ls -A /etc /var/lib /etc/systemd/system");
    const server = await machine?.serve(9000, "from behind");
    const made = JSON.parse(
      await ok(
        "gatehouse init --yes --upstream http://127.0.0.1:9000 --listen 127.0.0.1:8008 --json 2>/dev/null",
      ),
    ) as { token: string; grade: string; service: { name: string } };
    expect(made.service.name).toBe("gatehouse");
    expect(await shown("ActiveState")).toBe("active");
    expect(await statusOf("/x")).toBe("401");
    expect(await machine?.ask(`${GATE}/x`, made.token)).toBe("200 from behind");
    expect(made.grade).toBe("A");
    const doctor = await run("gatehouse doctor -c /etc/gatehouse/config.yaml");
    expect(doctor.text).not.toContain("error:");
    expect(doctor.code).toBe(0);
    await ok("gatehouse init --undo --yes");
    server?.stop();
    expect(await ok("ls -A /etc /var/lib /etc/systemd/system")).toBe(before);
  }, 60_000);
});
