/**
 * `gatehouse init` as root on a machine that systemd runs: the usual places, credentials, a certificate, and how all of
 * it goes away again.
 *
 * Invariant: the machine is one of the test's own: /etc, /var/lib, /run and /usr/local/bin are copies, and the service
 * manager is a stand-in.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import {
  freePort,
  type InitPlace,
  initPlace,
  NO_OWN_MACHINE,
  onOwnMachine,
  treeOf,
} from "../support/init.ts";
import { standInManager } from "../support/stand-in-manager.ts";
import { dextoStandIn } from "../support/standins/dexto.ts";
import { ollamaStandIn } from "../support/standins/ollama.ts";
import { A_KEY, GOOD_CERTIFICATE } from "../support/tls-fixtures.ts";

const KEY = "the-key-of-dexto-itself";
const ollama = ollamaStandIn();
const dexto = dextoStandIn(KEY);
afterAll(async () => {
  await ollama.stop();
  await dexto.stop();
});

let place: InitPlace;
beforeEach(() => {
  place = initPlace();
});
afterEach(() => place.remove());

/** Files of the machine without its accounts and the like, which nobody touches. */
function machine(): readonly string[] {
  const of = (dir: string): readonly string[] =>
    treeOf(join(place.home, "machine", dir)).map((line) => `${dir}/${line}`);
  return [...of("etc"), ...of("var-lib")];
}

if (NO_OWN_MACHINE !== null) {
  test(`on a machine of its own (not run: ${NO_OWN_MACHINE})`, () => {});
} else {
  describe("on a machine of its own", () => {
    test("root gets a service in the usual places, and loses it again", async () => {
      standInManager(place, { scope: "system" });
      await onOwnMachine(place, "true");
      const before = machine();
      const port = await freePort();
      const script = `gatehouse init --yes --json --upstream ${ollama.url} --listen 127.0.0.1:${port} >made.json || exit $?
cp /etc/gatehouse/config.yaml kept.yaml
find /etc/gatehouse /var/lib/gatehouse /etc/systemd/system/gatehouse.service -printf '%p %m\\n' | sort >modes
token=$(sed -n 's/^  "token": "\\(.*\\)",/\\1/p' made.json)
curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:${port}/api/version
curl -s -o /dev/null -w '%{http_code} ' -H "Authorization: Bearer $token" http://127.0.0.1:${port}/api/version
gatehouse init --undo --yes`;
      const { code, stdout, stderr } = await onOwnMachine(place, script);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toStartWith("401 200 removed gatehouse.service\n");
      const answer = JSON.parse(readFileSync(join(place.home, "made.json"), "utf8"));
      expect(answer).toMatchObject({
        config: "/etc/gatehouse/config.yaml",
        state: "/var/lib/gatehouse",
        start: "systemctl start gatehouse",
        grade: "A",
      });
      const modes = readFileSync(join(place.home, "modes"), "utf8");
      // The account that systemd makes reads it; there is no secret in it.
      expect(modes).toContain("/etc/gatehouse 755\n");
      expect(modes).toContain("/etc/gatehouse/config.yaml 644\n");
      expect(modes).toContain("/var/lib/gatehouse 700\n");
      expect(machine()).toEqual(before);
    });

    test("secrets and the certificate reach the service as credentials", async () => {
      standInManager(place, { scope: "system" });
      const port = await freePort();
      const script = `mkdir -p /etc/letsencrypt/live/localhost; cd /etc/letsencrypt/live/localhost
cat >fullchain.pem <<'PEM'
${GOOD_CERTIFICATE}PEM
cat >privkey.pem <<'PEM'
${A_KEY}PEM
chmod 600 privkey.pem; cd ${place.home}
DEXTO_SERVER_API_KEY=${KEY} gatehouse init --yes --json --upstream ${dexto.url} --access tokens --access static \\
  --clients public --domain localhost --listen 127.0.0.1:${port} \\
  --tls-cert /etc/letsencrypt/live/localhost/fullchain.pem --tls-key /etc/letsencrypt/live/localhost/privkey.pem || exit $?
cp /etc/gatehouse/config.yaml kept.yaml; cp /etc/systemd/system/gatehouse.service kept.service
find /etc/gatehouse/credentials -printf '%P %m %l\\n' | sort >modes
rm -r /etc/letsencrypt`;
      const { code, stdout, stderr } = await onOwnMachine(place, script);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const answer = JSON.parse(stdout);
      expect(answer).toMatchObject({ grade: "A", url: `https://localhost:${port}` });
      const config = readFileSync(join(place.home, "kept.yaml"), "utf8");
      expect(config).not.toContain(KEY);
      expect(parse(config)).toMatchObject({
        server: {
          tls: {
            cert: "/run/credentials/gatehouse.service/tls-cert",
            key: "/run/credentials/gatehouse.service/tls-key",
          },
        },
        strategies: { ops: { file: "/run/credentials/gatehouse.service/ops-token" } },
        upstreams: { dexto: { headers: { authorization: "Bearer ${cred:dexto-key}" } } },
      });
      expect(readFileSync(join(place.home, "modes"), "utf8").trim().split("\n")).toEqual(
        [
          "700",
          "dexto-key 600",
          "ops-token 600",
          "tls-cert 777 /etc/letsencrypt/live/localhost/fullchain.pem",
          "tls-key 777 /etc/letsencrypt/live/localhost/privkey.pem",
        ].map((line) => expect.stringContaining(line)),
      );
      expect(readFileSync(join(place.home, "kept.service"), "utf8")).toContain(
        "LoadCredential=dexto-key:/etc/gatehouse/credentials/dexto-key",
      );
      await onOwnMachine(place, "systemctl stop gatehouse.service");
    });

    test("whoever is not root is told how, with sudo and without", async () => {
      standInManager(place, { scope: "system" });
      const script = `chmod 755 ${place.home}
as_user() { PATH=${place.home}/bin /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups -- /usr/local/bin/gatehouse init --yes --upstream ${ollama.url} --service system; echo $?; }
as_user
printf '#!/bin/sh\\n' >${place.home}/bin/sudo; chmod 755 ${place.home}/bin/sudo
as_user`;
      // The stand-in needs no other program to say its version.
      const { stdout, stderr } = await onOwnMachine(place, script);
      expect(stdout).toBe("77\n77\n");
      expect(stderr).toContain("there is no sudo here: log in as root (su -)");
      expect(stderr).toContain("installed by root: sudo gatehouse init");
    });
  });
}
