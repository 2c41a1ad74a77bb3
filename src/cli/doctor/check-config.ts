/**
 * The configuration: everything that `config validate` finds, and what lies open beside it.
 *
 * Invariant: finds exactly what the start of the service would find, with the service's variables where there is one.
 */
import { readdirSync, type Stats, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { issuesAsData } from "../../config/explain.ts";
import type { ConfigIssue } from "../../config/model.ts";
import { hasReference } from "../../config/references.ts";
import { error, type Finding, info, ok, someOf, warning } from "./finding.ts";
import type { Check, Subject } from "./subject.ts";

/** Files that by custom hold secrets. */
const SECRET_FILE = /^(?:\.env(?:\..+)?|.+\.env|environment)$/;
/** Examples are made to be read. */
const EXAMPLE = /\.(?:example|sample|template|dist)$/;

export const checkConfig: Check = {
  group: "Configuration",
  name: "the configuration",
  run: (subject) => [...issueFindings(subject), ...fileFindings(subject)],
};

function issueFindings(subject: Subject): readonly Finding[] {
  const { loaded, shownFile, config, unit, unknownEnv } = subject;
  const findings = issuesAsData(loaded.issues, shownFile).map((issue) =>
    error("config_invalid", issueText(issue), {
      why:
        config === null
          ? "The gateway does not start with this configuration."
          : "The gateway does not start as long as this is so.",
      next: issue.hint ?? validateCommand(subject),
    }),
  );
  for (const note of loaded.notes) findings.push(info("config_note", note));
  if (unknownEnv !== null) {
    findings.push(
      info("secrets_unseen", `the service's secrets were not looked at: ${unknownEnv}`, {
        next: `as root: \`sudo gatehouse doctor -c ${shownFile}\``,
      }),
    );
  }
  if (loaded.config === null) return findings;
  const { routes, strategies, upstreams } = loaded.config;
  const as = unit === null ? "" : `, as ${unit.name}.service reads it`;
  const count = (number: number, one: string, many = `${one}s`): string =>
    `${number} ${number === 1 ? one : many}`;
  const parts = [
    count(routes.length, "route"),
    count(strategies.length, "strategy", "strategies"),
    count(upstreams.length, "upstream"),
  ];
  return [
    ok("config_valid", `${shownFile ?? "configuration"}: ${parts.join(", ")}${as}`),
    ...findings,
  ];
}

function issueText(issue: ConfigIssue & { readonly file: string | null }): string {
  const { file, line, column, path, message } = issue;
  const place = line === 0 ? [file] : [file ?? "configuration", line, column];
  const what = [path, message].filter((part) => part !== "").join(": ");
  const where = place.filter((part) => part !== null).join(":");
  return where === "" ? what : `${where}: ${what}`;
}

function validateCommand({ shownFile, loaded }: Subject): string {
  return loaded.file === null || shownFile === null
    ? "`gatehouse config validate`"
    : `edit it, then \`gatehouse config validate -c ${shownFile}\``;
}

function fileFindings(subject: Subject): readonly Finding[] {
  const { file, written } = subject.loaded;
  if (file === null) return [];
  return [...openConfig(file, written, subject), ...openNeighbours(dirname(file))];
}

/** References are no secrets, but they say where the secrets are. */
function openConfig(file: string, written: unknown, { unit }: Subject): readonly Finding[] {
  const status = statusOf(file);
  if (status === null || (status.mode & 0o004) === 0 || !refers(written)) return [];
  const what = `${file} can be read by every user of this machine (mode ${octal(status)})`;
  const why = "It holds no secret itself, but says where they are and who may enter.";
  // An account that systemd makes belongs to no group that the file could be opened to.
  if (unit?.found.input.account === null) return [info("config_open", what, { why })];
  return [
    warning("config_open", what, { why, next: `\`chmod 640 ${file}\`, with the service's group` }),
  ];
}

function openNeighbours(dir: string): readonly Finding[] {
  const open = namesIn(dir)
    .filter((name) => SECRET_FILE.test(name) && !EXAMPLE.test(name))
    .map((name) => join(dir, name))
    .filter((path) => {
      const status = statusOf(path);
      return status?.isFile() && status.size > 0 && (status.mode & 0o004) !== 0;
    });
  if (open.length === 0) return [];
  return [
    error(
      "env_file_open",
      `${someOf(open.map((path) => basename(path)))} beside the configuration can be read by every user of this machine`,
      {
        why: "Files of this name hold secrets: every account and every program here can take them.",
        next: `\`chmod 600 ${open.join(" ")}\`, and take what is in there for known to others`,
      },
    ),
  ];
}

function refers(value: unknown): boolean {
  if (typeof value === "string") return hasReference(value);
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).some(refers);
}

function namesIn(dir: string): readonly string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function statusOf(path: string): Stats | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

function octal(status: Stats): string {
  return (status.mode & 0o777).toString(8).padStart(3, "0");
}
