/**
 * The Debian package: what is in it, that it is the same every time, and what its scripts do to a machine.
 *
 * Invariant: the package that is looked at is the one that build.ts makes; nothing is installed on this machine.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";
import { type ParsedTarEntryWithData, unpackTar } from "modern-tar";
import { buildPackage, packageFileName } from "../packaging/deb/contents.ts";
import { removeScratch, scratchDirectory } from "./support/scratch.ts";

afterAll(removeScratch);

const ROOT = resolve(import.meta.dir, "..");
const INPUT = {
  version: "1.2.3",
  architecture: "arm64",
  executable: Buffer.from("not really an executable\n"),
  completions: { bash: "# bash\n", zsh: "#compdef gatehouse\n", fish: "# fish\n" },
  modifiedAt: new Date("2026-11-21T12:00:00Z"),
} as const;
const DOC = "./usr/share/doc/gatehouse";

describe("the package", () => {
  let members: ReadonlyMap<string, Buffer>;
  let control: ReadonlyMap<string, ParsedTarEntryWithData>;
  let files: ReadonlyMap<string, ParsedTarEntryWithData>;

  beforeAll(async () => {
    members = arMembers(Buffer.from(await buildPackage(INPUT)));
    control = await entriesOf("control.tar.gz");
    files = await entriesOf("data.tar.gz");
  });

  async function entriesOf(name: string): Promise<Map<string, ParsedTarEntryWithData>> {
    const entries = await unpackTar(gunzipSync(members.get(name) ?? Buffer.of()));
    return new Map(entries.map((entry) => [entry.header.name, entry]));
  }

  const content = (of: ReadonlyMap<string, ParsedTarEntryWithData>, name: string): string =>
    Buffer.from(of.get(name)?.data ?? []).toString();

  test("has the members that deb(5) wants, in that order", () => {
    expect([...members.keys()]).toEqual(["debian-binary", "control.tar.gz", "data.tar.gz"]);
    expect(members.get("debian-binary")?.toString()).toBe("2.0\n");
  });

  test("says what it is", () => {
    const lines = content(control, "./control").split("\n");
    expect(lines).toContain("Package: gatehouse");
    expect(lines).toContain("Version: 1.2.3-1");
    expect(lines).toContain("Architecture: arm64");
    expect(lines).toContain("Depends: libc6 (>= 2.17)");
    expect(lines.filter((line) => /^Maintainer: .+ <\S+@\S+>$/.test(line))).toHaveLength(1);
    expect(lines.at(-1)).toBe("");
  });

  test("a pre-release is older than its release", () => {
    const name = packageFileName({ version: "1.2.0-rc.1", architecture: "amd64" });
    expect(name).toBe("gatehouse_1.2.0~rc.1-1_amd64.deb");
  });

  test("brings the executable, the unit, the licence and an example, and no configuration", () => {
    expect(content(files, "./usr/bin/gatehouse")).toBe(INPUT.executable.toString());
    const unit = readFileSync(join(ROOT, "packaging/systemd/gatehouse.service"), "utf8");
    expect(content(files, "./usr/lib/systemd/system/gatehouse.service")).toBe(unit);
    expect(unit).toContain("ExecStart=/usr/bin/gatehouse ");
    expect(content(files, `${DOC}/copyright`)).toContain("License: Expat");
    expect(files.has("./usr/share/man/man1/gatehouse.1.gz")).toBeTrue();
    const example = readFileSync(join(ROOT, "config.example.yaml"), "utf8");
    expect(content(files, `${DOC}/examples/config.example.yaml`)).toBe(example);
    expect(content(files, "./usr/share/bash-completion/completions/gatehouse")).toBe("# bash\n");
    expect([...files.keys()].filter((name) => /^\.\/(?:etc|var|usr\/local)\b/.test(name))).toEqual(
      [],
    );
    expect(control.has("./conffiles")).toBeFalse();
  });

  test("everything belongs to root, and only the executable can be executed", () => {
    for (const [name, { header }] of files) {
      expect([name, header.uid, header.gid]).toEqual([name, 0, 0]);
      const isExecutable = header.type === "directory" || name === "./usr/bin/gatehouse";
      expect([name, header.mode]).toEqual([name, isExecutable ? 0o755 : 0o644]);
    }
  });

  test("every directory comes before what is in it", () => {
    const names = [...files.keys()];
    for (const name of names) {
      const parent = `${name.replace(/\/$/, "").split("/").slice(0, -1).join("/")}/`;
      if (name !== "./") expect(names.indexOf(parent)).toBeLessThan(names.indexOf(name));
      if (name !== "./") expect(names).toContain(parent);
    }
  });

  test("md5sums are those of the files, all of them", () => {
    const lines = content(control, "./md5sums").trim().split("\n");
    const expected = [...files.values()]
      .filter(({ header }) => header.type === "file")
      .map(({ header, data }) => {
        const digest = createHash("md5")
          .update(data ?? Buffer.of())
          .digest("hex");
        return `${digest}  ${header.name.slice(2)}`;
      });
    expect(lines.toSorted()).toEqual(expected.toSorted());
  });

  test("documentation is packed without a time or a name", () => {
    const packed = [...files].filter(([name]) => name.endsWith(".gz"));
    expect(packed.map(([name]) => name)).toContain(`${DOC}/changelog.gz`);
    for (const [, { data }] of packed) {
      // RFC 1952: flags, then four bytes of time.
      expect([...Buffer.from(data ?? []).subarray(3, 8)]).toEqual([0, 0, 0, 0, 0]);
    }
    const changelog = gunzipSync(files.get(`${DOC}/changelog.Debian.gz`)?.data ?? Buffer.of());
    expect(changelog.toString()).toMatch(
      /^gatehouse \(1\.2\.3-1\) [\s\S]*Sat, 21 Nov 2026 12:00:00 \+0000\n$/,
    );
  });
});

/** ar(5): name, sizes and data of each member. */
function arMembers(archive: Buffer): ReadonlyMap<string, Buffer> {
  const members = new Map<string, Buffer>();
  expect(archive.subarray(0, 8).toString()).toBe("!<arch>\n");
  for (let at = 8; at < archive.length; ) {
    const header = archive.subarray(at, at + 60).toString();
    expect(header.slice(58)).toBe("`\n");
    const size = Number(header.slice(48, 58));
    members.set(header.slice(0, 16).trim(), archive.subarray(at + 60, at + 60 + size));
    at += 60 + size + (size % 2);
  }
  return members;
}

describe("build.ts --deb", () => {
  const isDebian = process.platform === "linux" && ["x64", "arm64"].includes(process.arch);
  if (!isDebian) console.log(`build.ts --deb: not tried on ${process.platform} ${process.arch}`);
  const dpkg = Bun.which("dpkg-deb");
  if (dpkg === null) console.log("build.ts --deb: dpkg-deb is not here to read the package with");

  test.skipIf(!isDebian)(
    "makes the same package twice, in the checksums, and its executable runs",
    async () => {
      const [first, second] = [scratchDirectory(), scratchDirectory()];
      const [made] = await Promise.all([build(first), build(second)]);
      expect(made.all).toEqual(["SHA256SUMS", made.executable, made.deb].toSorted());
      const lines = readFileSync(join(first, "SHA256SUMS"), "utf8").trim().split("\n");
      expect(lines).toEqual(
        [made.executable, made.deb]
          .map((name) => `${sha256(join(first, name))}  ${name}`)
          .toSorted(),
      );
      await build(second);
      expect(sha256(join(second, made.deb))).toBe(sha256(join(first, made.deb)));
      if (dpkg !== null) await readByDpkg(join(first, made.deb), join(first, made.executable));
    },
  );

  test("is refused with targets that Debian has no architecture for", async () => {
    const command = [process.execPath, "build.ts", "--deb", "--target", "windows-x64"];
    const child = Bun.spawn(command, { cwd: ROOT, stdout: "ignore", stderr: "pipe" });
    expect(await child.exited).toBe(2);
    expect(await child.stderr.text()).toContain("--deb");
  });
});

/** Names of what was made, without the source maps. */
interface Made {
  readonly all: readonly string[];
  readonly executable: string;
  readonly deb: string;
}

async function build(out: string): Promise<Made> {
  await run([process.execPath, "build.ts", "--deb", "--out", out]);
  const all = readdirSync(out).filter((name) => !name.endsWith(".maps"));
  const find = (is: RegExp) => all.find((name) => is.test(name)) ?? `nothing like ${is}`;
  return { all: all.toSorted(), executable: find(/^gatehouse-/), deb: find(/\.deb$/) };
}

/** Debian's own tool reads it, and what it unpacks runs. */
async function readByDpkg(deb: string, executable: string): Promise<void> {
  const fields = await run(["dpkg-deb", "--field", deb]);
  expect(fields).toContain("Package: gatehouse\n");
  const listed = (await run(["dpkg-deb", "--contents", deb])).trim().split("\n");
  expect(listed.every((line) => /^[d-]\S+ root\/root /.test(line))).toBeTrue();
  const root = scratchDirectory();
  await run(["dpkg-deb", "--extract", deb, root]);
  expect(sha256(join(root, "usr/bin/gatehouse"))).toBe(sha256(executable));
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  expect(await run([join(root, "usr/bin/gatehouse"), "version"])).toStartWith(
    `gatehouse ${version}`,
  );
}

async function run(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${stderr}${stdout}`);
  return stdout;
}

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/**
 * The tools that the scripts call are Debian's; here they write down what they were called with. `known` is whether the
 * unit was installed before, `wanted` whether the operator had enabled it.
 */
describe.skipIf(process.platform === "win32")("the maintainer scripts", () => {
  async function calls(
    script: string,
    args: readonly string[],
    { known, wanted }: { known: boolean; wanted: boolean },
  ): Promise<readonly string[]> {
    const tools = scratchDirectory();
    const log = join(tools, "log");
    const answers: Readonly<Record<string, boolean>> = {
      "debian-installed": known,
      "was-enabled": wanted,
    };
    const cases = Object.entries(answers).map(
      ([word, isSo]) => `*${word}*) exit ${isSo ? 0 : 1} ;;`,
    );
    for (const name of ["deb-systemd-helper", "deb-systemd-invoke", "systemctl"]) {
      const path = join(tools, name);
      writeFileSync(
        path,
        `#!/bin/sh\necho "${name} $*" >>"${log}"\ncase "$*" in\n${cases.join("\n")}\nesac\n`,
      );
      chmodSync(path, 0o755);
    }
    const child = Bun.spawn(["/bin/sh", join(ROOT, "packaging/deb", script), ...args], {
      env: { PATH: tools },
      stdout: "ignore",
      stderr: "inherit",
    });
    expect(await child.exited).toBe(0);
    return existsSync(log) ? readFileSync(log, "utf8").trim().split("\n") : [];
  }

  test("a first installation enables nothing and starts nothing", async () => {
    // Debian's tool says of a unit that it has never seen that it was enabled.
    const called = await calls("postinst", ["configure", ""], { known: false, wanted: true });
    expect(called).toContain("deb-systemd-helper update-state gatehouse.service");
    expect(called.join("\n")).not.toMatch(/\b(?:enable|start|restart|try-restart) /);
  });

  test("after a removal the operator's choice is kept", async () => {
    const enabled = await calls("postinst", ["configure", ""], { known: true, wanted: true });
    expect(enabled).toContain("deb-systemd-helper unmask gatehouse.service");
    expect(enabled).toContain("deb-systemd-helper enable gatehouse.service");
    const disabled = await calls("postinst", ["configure", ""], { known: true, wanted: false });
    expect(disabled).not.toContain("deb-systemd-helper enable gatehouse.service");
  });

  test("removing masks the unit, purging forgets it, and neither touches state or configuration", async () => {
    const known = { known: true, wanted: true };
    expect(await calls("postrm", ["remove"], known)).toContain(
      "deb-systemd-helper mask gatehouse.service",
    );
    expect(await calls("postrm", ["purge"], known)).toContain(
      "deb-systemd-helper purge gatehouse.service",
    );
    const scripts = ["postinst", "postrm", "prerm"].map((name) =>
      readFileSync(join(ROOT, "packaging/deb", name), "utf8"),
    );
    expect(scripts.join("\n")).not.toMatch(/\brm\b/);
  });

  test("an upgrade does not stop the service before the new one is there", async () => {
    expect(await calls("prerm", ["upgrade", "1.2.4-1"], { known: true, wanted: true })).toEqual([]);
  });
});
