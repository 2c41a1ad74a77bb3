/**
 * Certificates of the listeners: how long they last, and whether they are for the names that clients use.
 *
 * Invariant: reads only. That a pair cannot be read, does not fit together or has expired is said by the check of the
 * configuration.
 */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { TlsPair } from "../../config/model.ts";
import { error, type Finding, info, ok, warning } from "./finding.ts";
import { isLoopbackHost } from "./networks.ts";
import { needingConfig } from "./subject.ts";

const DAY_MS = 86_400_000;
/** Whoever renews automatically does so a third of 90 days before the end. */
const SOON_DAYS = 30;

interface ReadPair {
  readonly pair: TlsPair;
  readonly certificate: X509Certificate;
}

export const checkTls = needingConfig("TLS", "the certificates", ({ server }, { clock }) => {
  const pairs = server.tls.flatMap(readPair);
  return [
    ...pairs.flatMap((one) => lifeFindings(one, clock.nowMs())),
    ...nameFindings(pairs, server.publicUrls),
    ...plainFindings(server.publicUrls, pairs.length > 0),
  ];
});

function readPair(pair: TlsPair): readonly ReadPair[] {
  try {
    return [{ pair, certificate: new X509Certificate(readFileSync(pair.cert)) }];
  } catch {
    return [];
  }
}

function lifeFindings({ pair, certificate }: ReadPair, nowMs: number): readonly Finding[] {
  const days = Math.floor((Date.parse(certificate.validTo) - nowMs) / DAY_MS);
  if (days < 0) return [];
  const until = new Date(Date.parse(certificate.validTo)).toISOString().slice(0, 10);
  const findings: Finding[] = [];
  if (days < SOON_DAYS) {
    findings.push(
      warning("tls_expiring", `${pair.cert} expires in ${days} days, on ${until}`, {
        why: "From then on clients refuse to talk to this gateway.",
        next: "renew it (`certbot renew`), then `gatehouse reload` (as a service: `systemctl reload gatehouse`)",
      }),
    );
  } else {
    findings.push(ok("tls_valid", `${pair.cert} is valid until ${until} (${days} days)`));
  }
  if (certificate.issuer === certificate.subject) {
    findings.push(
      info("tls_self_signed", `${pair.cert} is signed by itself`, {
        why: "Only clients that were given this very certificate trust it.",
      }),
    );
  }
  return findings;
}

/** The pair of a name, else the one without a name, as the listener chooses. */
function nameFindings(
  pairs: readonly ReadPair[],
  publicUrls: readonly string[],
): readonly Finding[] {
  if (pairs.length === 0) return [];
  return publicUrls.flatMap((url) => {
    const { protocol, hostname } = new URL(url);
    if (protocol !== "https:") return [];
    const host = hostname.replace(/^\[|\]$/g, "");
    const chosen =
      pairs.find(({ pair }) => pair.name === host) ??
      pairs.find(({ pair }) => pair.name === null) ??
      pairs[0];
    if (chosen === undefined) return [];
    const { certificate, pair } = chosen;
    const fits = isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host);
    if (fits !== undefined) return [ok("tls_name", `${pair.cert} is for ${host}`)];
    return [
      error("tls_name_wrong", `${pair.cert} is not for ${host}, which server.public_url names`, {
        why: "Clients that use this address refuse the connection.",
        next: `get a certificate for ${host}, or correct \`server.public_url\``,
      }),
    ];
  });
}

/** TLS is done by somebody in front, or by nobody. */
function plainFindings(publicUrls: readonly string[], hasTls: boolean): readonly Finding[] {
  const plain = publicUrls.filter((url) => url.startsWith("http://") && !isLocal(url));
  if (plain.length === 0 || hasTls) return [];
  return [
    warning("tls_none", `server.public_url says ${plain.join(", ")}: without TLS`, {
      why: "Credentials cross the network in clear, for everybody on the way to copy.",
      next: "set `server.tls`, or put a proxy with TLS in front and write https:// into `server.public_url`",
    }),
  ];
}

function isLocal(url: string): boolean {
  const { hostname } = new URL(url);
  return isLoopbackHost(hostname.replace(/^\[|\]$/g, ""));
}
