/**
 * TLS as seen from outside: whether there is any, which versions, the certificate, and what stands beside it on port 80.
 *
 * Invariant: handshakes and one GET without a credential; nothing but the host of the URL.
 */
import { EXIT, OperatorError } from "../../errors.ts";
import { error, type Finding, info, ok, warning } from "../doctor/finding.ts";
import { fieldOf } from "./answer.ts";
import type { Remembered } from "./prober.ts";
import type { Target } from "./target.ts";
import { exchange, handshake, isOpen, type TlsFacts } from "./wire.ts";

const DAY_MS = 86_400_000;
const SOON_DAYS = 14;
const HTTPS_PORT = 443;
const HTTP_PORT = 80;
/** On this machine and its network, and elsewhere. */
const NEAR_MS = 1500;
const FAR_MS = 4000;

/** What the handshake says, and whether a token may be sent. */
export interface TlsLook {
  readonly findings: readonly Finding[];
  /** A certificate that is trusted, or no TLS on a way that is our own. */
  readonly mayCarryToken: boolean;
}

/** Before anything else. @throws OperatorError when nobody speaks TLS there */
export async function lookAtTls(target: Target, nowMs: number): Promise<TlsLook> {
  if (!target.isTls) return withoutTls(target);
  const facts = await handshake(target, withinMsOf(target));
  if (typeof facts === "string") {
    throw new OperatorError(
      EXIT.unavailable,
      `${target.origin}: no TLS handshake (${facts})`,
      "Is the address right, and is it https:// on this port?",
    );
  }
  const old = await handshake(target, withinMsOf(target), {
    minVersion: "TLSv1",
    maxVersion: "TLSv1.1",
  });
  const findings = [
    ...trustFindings(facts, nowMs),
    ...versionFindings(facts, typeof old !== "string" && /^TLSv1(?:\.1)?$/.test(old.protocol)),
    ...(target.port === HTTPS_PORT ? await plainPortFindings(target, HTTP_PORT) : []),
  ];
  return { findings, mayCarryToken: facts.distrust === null };
}

/** Whether browsers are told to come back with TLS only. */
export function hstsFindings(
  target: Target,
  remembered: readonly Remembered[],
): readonly Finding[] {
  if (!target.isTls) return [];
  const has = remembered.some(
    ({ answer }) => fieldOf(answer, "strict-transport-security") !== null,
  );
  if (has) return [ok("hsts", "browsers are told to use TLS only")];
  return [
    info(
      "hsts_absent",
      "no Strict-Transport-Security: a browser that is sent to http:// goes there",
    ),
  ];
}

function withoutTls(target: Target): TlsLook {
  if (target.isNear) {
    const what = "no TLS, on an address that only this machine or its network reaches";
    return { findings: [info("tls_none_near", what)], mayCarryToken: true };
  }
  return {
    findings: [
      error("tls_none", "no TLS over the internet", {
        why: "Credentials and answers cross it in clear, for everybody on the way to copy. The token was not sent.",
        next: "get a certificate for the gateway (`server.tls`) or for a proxy in front (Caddy does it by itself)",
      }),
    ],
    mayCarryToken: false,
  };
}

function trustFindings({ distrust, certificate }: TlsFacts, nowMs: number): readonly Finding[] {
  if (distrust !== null) {
    return [
      error("tls_distrusted", `the certificate is not trusted (${distrust})`, {
        why: "Clients refuse it, or have been told to trust anybody: then everybody on the way reads along. The token was not sent.",
        next: "get a certificate for this name; for one of your own authority set NODE_EXTRA_CA_CERTS",
      }),
    ];
  }
  const days = Math.floor((Date.parse(certificate.valid_to) - nowMs) / DAY_MS);
  if (days >= SOON_DAYS)
    return [ok("tls_trusted", `the certificate is trusted and lasts ${days} more days`)];
  return [
    warning("tls_expiring", `the certificate expires in ${days} days`, {
      why: "From then on clients refuse to connect. Whoever renews automatically has done so by now.",
      next: "see why it was not renewed: `certbot renew --dry-run`, or the log of the proxy",
    }),
  ];
}

function versionFindings({ protocol }: TlsFacts, isOldSpoken: boolean): readonly Finding[] {
  if (!isOldSpoken) return [ok("tls_version", `${protocol}; nothing older than TLS 1.2 is spoken`)];
  return [
    warning("tls_old", "TLS 1.0 or 1.1 is spoken as well", {
      why: "They were withdrawn (RFC 8996): they can be broken by somebody on the way.",
      next: "in nginx `ssl_protocols TLSv1.2 TLSv1.3;`",
    }),
  ];
}

/** Whoever types the name without https:// comes to this port first. Never rejects. */
export async function plainPortFindings(target: Target, port: number): Promise<readonly Finding[]> {
  if (!(await isOpen(target.host, port, withinMsOf(target)))) return [];
  const bytes = `GET / HTTP/1.1\r\nHost: ${target.host}\r\nConnection: close\r\n\r\n`;
  const plain = { ...target, isTls: false, port };
  const { answers } = await exchange(plain, {
    bytes,
    methods: ["GET"],
    withinMs: withinMsOf(target),
  });
  const [answer] = answers;
  if (answer === undefined || (answer.status >= 300 && answer.status < 400)) return [];
  return [
    warning(
      "tls_optional",
      `port ${port} answers in clear (${answer.status}) instead of leading to https://`,
      {
        why: "A client that is configured with http:// works, and sends its credential in clear every time.",
        next: "let it redirect to https:// and do nothing else",
      },
    ),
  ];
}

function withinMsOf({ isNear }: Target): number {
  return isNear ? NEAR_MS : FAR_MS;
}
