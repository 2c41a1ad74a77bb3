/**
 * What is in the Debian package, and where.
 *
 * Invariant: it brings no configuration and starts nothing: without a file in /etc/gatehouse there is nothing to serve,
 * and who may pass is for the operator to say.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { debianPackage, type PackageEntry } from "./archive.ts";

/** Architectures as Debian names them. */
export type DebianArchitecture = "amd64" | "arm64";

/** What a package is made of. */
export interface PackageInput {
  /** As in package.json. */
  readonly version: string;
  readonly architecture: DebianArchitecture;
  readonly executable: Uint8Array;
  /** By shell: what `gatehouse completion SHELL` prints. */
  readonly completions: Readonly<Record<Shell, string>>;
  /** Of every file in it: the time of the commit. */
  readonly modifiedAt: Date;
}

/** Shells with completions. */
export type Shell = "bash" | "zsh" | "fish";

const ROOT = join(import.meta.dir, "..", "..");

/** Where Debian's packages of these shells look. */
const COMPLETIONS: Readonly<Record<Shell, string>> = {
  bash: "usr/share/bash-completion/completions/gatehouse",
  zsh: "usr/share/zsh/vendor-completions/_gatehouse",
  fish: "usr/share/fish/vendor_completions.d/gatehouse.fish",
};

/** Debian asks for an address. There is none, and one that looked real could be somebody's. */
const MAINTAINER = "Gatehouse contributors <gatehouse@packages.invalid>";

/** Symbol versions of the C library that the executable asks for end at this one, on both architectures. */
const GLIBC = "2.17";

/** Name of the package's file. */
export function packageFileName({
  version,
  architecture,
}: Pick<PackageInput, "version" | "architecture">): string {
  return `gatehouse_${debianVersion(version)}_${architecture}.deb`;
}

/** The package's bytes. */
export async function buildPackage(input: PackageInput): Promise<Uint8Array> {
  const files = filesOf(input);
  return debianPackage({
    modifiedAt: input.modifiedAt,
    files,
    control: [
      text("control", controlOf(input, files)),
      text("md5sums", md5sums(files)),
      ...["postinst", "postrm", "prerm"].map((name) => ({
        path: name,
        mode: 0o755,
        data: readFileSync(join(import.meta.dir, name)),
      })),
    ],
  });
}

/** A pre-release sorts before its release: 0.2.0-rc.1 is 0.2.0~rc.1-1 here. */
function debianVersion(version: string): string {
  return `${version.replace("-", "~")}-1`;
}

function filesOf(input: PackageInput): readonly PackageEntry[] {
  const { executable, completions } = input;
  const doc = "usr/share/doc/gatehouse";
  return [
    { path: "usr/bin/gatehouse", mode: 0o755, data: executable },
    file("usr/lib/systemd/system/gatehouse.service", "packaging/systemd/gatehouse.service"),
    packed("usr/share/man/man1/gatehouse.1.gz", readFileSync(join(ROOT, "packaging/gatehouse.1"))),
    ...Object.entries(COMPLETIONS).map(([shell, path]) => text(path, completions[shell as Shell])),
    packed(`${doc}/changelog.gz`, readFileSync(join(ROOT, "CHANGELOG.md"))),
    packed(`${doc}/changelog.Debian.gz`, Buffer.from(debianChangelog(input))),
    text(`${doc}/copyright`, copyright()),
    file(`${doc}/README.Debian`, "packaging/deb/README.Debian"),
    file(`${doc}/examples/config.example.yaml`, "config.example.yaml"),
  ];
}

function file(path: string, source: string): PackageEntry {
  return { path, mode: 0o644, data: readFileSync(join(ROOT, source)) };
}

function packed(path: string, data: Uint8Array<ArrayBuffer>): PackageEntry {
  return { path, mode: 0o644, data: Bun.gzipSync(data, { level: 9, library: "libdeflate" }) };
}

function text(path: string, content: string): PackageEntry {
  return { path, mode: 0o644, data: Buffer.from(content) };
}

function controlOf(
  { version, architecture }: PackageInput,
  files: readonly PackageEntry[],
): string {
  const kibibytes = files.reduce((sum, { data }) => sum + Math.ceil((data?.length ?? 0) / 1024), 0);
  return `Package: gatehouse
Version: ${debianVersion(version)}
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Installed-Size: ${kibibytes}
Depends: libc6 (>= ${GLIBC})
Recommends: ca-certificates
Section: net
Priority: optional
Description: gate in front of HTTP services
 Gatehouse is one executable that stands in front of HTTP services, such as
 model servers and agents, and decides who may pass: by tokens that it makes
 and takes back, by Nostr keys, by tokens of an identity provider, or by
 strategies of your own.
 .
 It forwards what may pass, or answers the questions of a reverse proxy
 (Traefik, nginx, Caddy, Envoy, HAProxy).
`;
}

/** deb-changelog(5): what changed in the packaging; what changed in Gatehouse is in changelog.gz. */
function debianChangelog({ version, modifiedAt }: PackageInput): string {
  const date = modifiedAt.toUTCString().replace("GMT", "+0000");
  return `gatehouse (${debianVersion(version)}) unstable; urgency=medium

  * Release ${version}; see changelog.gz.

 -- ${MAINTAINER}  ${date}
`;
}

/** md5sum(1)'s form, which dpkg --verify reads. */
function md5sums(files: readonly PackageEntry[]): string {
  return files
    .map(
      ({ path, data }) =>
        `${createHash("md5")
          .update(data ?? "")
          .digest("hex")}  ${path}\n`,
    )
    .join("");
}

/** Debian's machine-readable form, from the licence file as it is. */
function copyright(): string {
  const licence = readFileSync(join(ROOT, "LICENSE"), "utf8").trim();
  const [, , owner = "", ...terms] = licence.split("\n");
  const indented = terms.join("\n").trim().replaceAll(/^/gm, " ").replaceAll(/^ $/gm, " .");
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Gatehouse

Files: *
Copyright: ${owner.replace(/^Copyright \(c\) /, "")}
License: Expat

License: Expat
${indented}
`;
}
