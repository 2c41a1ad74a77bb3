/**
 * What the files behind a configuration must be like: state directory, certificates, keys, listeners' addresses.
 *
 * Invariant: looks, never changes. What another user of the machine could read or swap is refused here, before
 * anything listens.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { type Stats, statSync } from "node:fs";
import { systemClock } from "../clock.ts";
import { errorCode } from "../errors.ts";
import { readRegularFile } from "../regular-file.ts";
import type { ConfigPath, Reporter } from "./issues.ts";
import type { ListenAddress, ServerConfig, TlsPair, UpstreamConfig } from "./model.ts";

/** Reports addresses that two listeners would fight over. */
export function checkListeners(listen: readonly ListenAddress[], report: Reporter): void {
  listen.forEach((address, index) => {
    const other = listen.findIndex((one, at) => at < index && doCollide(one, address));
    if (other === -1) return;
    const message = `the same address as server.listen[${other}]`;
    report.add(["server", "listen", index], message, "remove one of them");
  });
}

function doCollide(a: ListenAddress, b: ListenAddress): boolean {
  if (a.kind === "unix" || b.kind === "unix") {
    return a.kind === "unix" && b.kind === "unix" && a.path === b.path;
  }
  if (a.port !== b.port || a.port === 0) return false;
  if (a.host === b.host) return true;
  const isV6 = (host: string) => host.includes(":");
  const isAny = a.host === "0.0.0.0" || b.host === "0.0.0.0" || a.host === "::" || b.host === "::";
  return isAny && isV6(a.host) === isV6(b.host);
}

/**
 * The state directory, if it exists already: ours, and closed to everybody else.
 * @param user who will use it; undefined where users have no numbers
 */
export function checkStateDir(
  path: string,
  report: Reporter,
  user: number | undefined = process.getuid?.(),
): void {
  const at = ["state_dir"];
  const status = statusOf(path);
  if (status === "ENOENT") return;
  if (typeof status === "string") {
    report.add(at, `${path} cannot be looked at (${status})`, "give the service user access to it");
    return;
  }
  if (!status.isDirectory()) {
    report.add(at, `${path} is not a directory`, "name a directory of its own");
    return;
  }
  if ((status.mode & 0o077) !== 0) {
    const mode = octal(status);
    report.add(at, `${path} is open to other users (mode ${mode})`, `chmod 700 ${path}`);
  }
  if (user !== undefined && user !== 0 && status.uid !== user) {
    const message = `${path} belongs to another user (uid ${status.uid}, this is uid ${user})`;
    report.add(at, message, "run Gatehouse as its owner, or chown it");
  }
}

/** Every certificate and key. */
export function checkTls(
  server: ServerConfig,
  pathOf: (index: number) => ConfigPath,
  report: Reporter,
): void {
  server.tls.forEach((pair, index) => {
    checkPair(pair, pathOf(index), report);
    const other = server.tls.findIndex((one) => one.name === pair.name);
    if (other === index) return;
    const message =
      pair.name === null ? "a second pair without name" : "this name has a pair already";
    report.add(pathOf(index), message, "give each pair its own name");
  });
}

function checkPair(pair: TlsPair, path: ConfigPath, report: Reporter): void {
  const certificate = readCertificate(pair.cert, [...path, "cert"], report);
  const key = readKey(pair.key, [...path, "key"], report);
  if (certificate === null) return;
  const now = systemClock.nowMs();
  if (Date.parse(certificate.validTo) < now) {
    const message = `the certificate expired on ${certificate.validTo}`;
    report.add([...path, "cert"], message, "renew it");
  } else if (Date.parse(certificate.validFrom) > now) {
    const message = `the certificate is not valid before ${certificate.validFrom}`;
    report.add([...path, "cert"], message, "is this machine's clock right?");
  }
  if (key !== null && !certificate.checkPrivateKey(key)) {
    report.add([...path, "key"], "this key does not belong to the certificate", "check the pair");
  }
}

function readCertificate(file: string, path: ConfigPath, report: Reporter): X509Certificate | null {
  const text = readPem(file, path, report);
  if (text === null) return null;
  try {
    return new X509Certificate(text);
  } catch {
    report.add(path, `${file} holds no PEM certificate`, "the chain starts with the server's own");
    return null;
  }
}

/** A group may read a key, as in Debian's ssl-cert and in a pod's secrets; it may not put another one there. */
const CLOSED_KEY = 0o026;

function readKey(file: string, path: ConfigPath, report: Reporter): KeyObject | null {
  const status = statusOf(file);
  if (typeof status !== "string" && (status.mode & CLOSED_KEY) !== 0) {
    const message = `${file} is open to other users (mode ${octal(status)})`;
    report.add(path, message, `chmod 600 ${file}, or 640 for a group that may read it`);
  }
  const text = readPem(file, path, report);
  if (text === null) return null;
  try {
    return createPrivateKey(text);
  } catch {
    const hint = "a key with a passphrase cannot be used: decrypt it with `openssl pkey`";
    report.add(path, `${file} holds no usable PEM private key`, hint);
    return null;
  }
}

/** The certificates that https upstreams are checked against. */
export function checkAuthorities(
  upstreams: readonly (UpstreamConfig | null)[],
  report: Reporter,
): void {
  for (const upstream of upstreams) {
    if (upstream === null || upstream.ca === null) continue;
    const path = ["upstreams", upstream.name, "ca"];
    readCertificate(upstream.ca, path, report);
    if (upstream.target.kind === "unix" || !upstream.target.tls) {
      report.add(path, "only an https upstream has certificates to check", "remove ca");
    }
  }
}

function readPem(file: string, path: ConfigPath, report: Reporter): string | null {
  try {
    return readRegularFile(file);
  } catch (error) {
    const code = errorCode(error) ?? "error";
    const why = code === "ENOENT" ? "does not exist" : `cannot be read (${code})`;
    report.add(path, `${file} ${why}`, "check the path; the service user must be able to read it");
    return null;
  }
}

/** Status of a file, or the code of the error. */
function statusOf(path: string): Stats | string {
  try {
    return statSync(path);
  } catch (error) {
    return errorCode(error) ?? "error";
  }
}

function octal(status: Stats): string {
  return (status.mode & 0o777).toString(8).padStart(3, "0");
}
