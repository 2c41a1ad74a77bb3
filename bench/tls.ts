/**
 * What TLS towards the client costs on connections that are kept, beside nginx.
 *
 * Invariant: handshakes are over before the clock starts; the certificate is made for the run (P-256).
 */
import {
  gatehouseStatic,
  makeCertificate,
  nginxAuthRequest,
  startFixedUpstream,
} from "./contenders.ts";
import { comparePairs } from "./logging.ts";
import type { Lab } from "./support.ts";

export async function run(lab: Lab): Promise<void> {
  const certificate = makeCertificate(lab);
  if (certificate === null) {
    console.log("not measured: openssl, which makes the certificate, is not installed");
    return;
  }
  const upstream = await startFixedUpstream(lab);
  const plain = { upstreamPort: upstream.port, label: "plain" };
  const secured = { upstreamPort: upstream.port, label: "TLS", tls: certificate };
  await comparePairs(lab, [gatehouseStatic, nginxAuthRequest], plain, secured);
  await upstream.service.stop();
}
