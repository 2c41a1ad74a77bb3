/**
 * What the operator should know about the daemon's file, in words.
 *
 * Invariant: texts name the file and count entries; they quote nothing of what the file holds.
 */
import { statSync } from "node:fs";
import type { Condition } from "gatehouse";
import type { ClientList } from "./client-list.ts";
import type { DatabaseFault, FaultCode } from "./database.ts";

const FAULTS: Readonly<Record<FaultCode, { readonly text: string; readonly next: string }>> = {
  database_missing: {
    text: "is not there; the daemon creates it when it starts",
    next: "routstrd start",
  },
  database_locked: {
    text: "is locked by another process; requests wait for it and then fail",
    next: "fuser -v FILE",
  },
  database_unreadable: {
    text: "cannot be read; no key is accepted until it can",
    next: "sqlite3 FILE 'PRAGMA quick_check'",
  },
  storage_table_missing: {
    text: "has no table sdk_storage: it is not routstrd's, or the daemon has not finished its first start",
    next: "routstrd start",
  },
};

/** The condition that a fault is. */
export function conditionOfFault({ code, detail }: DatabaseFault, path: string): Condition {
  const { text, next } = FAULTS[code];
  return {
    code,
    severity: "error",
    text: `The database ${path} ${text} (${detail}).`,
    next: next.replace("FILE", path),
  };
}

/** What is odd about the list of clients; empty when nothing is. */
export function conditionsOfList(list: ClientList): readonly Condition[] {
  const conditions: Condition[] = [];
  if (list.state === "missing") {
    conditions.push({
      code: "clients_missing",
      severity: "info",
      text: "The daemon has no list of clients yet, so no key is known.",
      next: "routstrd clients add --name NAME",
    });
  }
  if (list.state === "unreadable") {
    conditions.push({
      code: "clients_unreadable",
      severity: "error",
      text: "The daemon's list of clients (client_ids) is not a JSON array, so no key is known.",
      next: "routstrd clients list",
    });
  }
  if (list.skipped > 0) {
    conditions.push({
      code: "clients_skipped",
      severity: "warning",
      text: `Clients without a usable id, key or owner: ${list.skipped}. Their keys are not known.`,
      next: "routstrd clients list",
    });
  }
  if (list.duplicates > 0) {
    conditions.push({
      code: "clients_share_a_key",
      severity: "warning",
      text: `Clients with the key of another client: ${list.duplicates}. Such a key counts as the first one's.`,
      next: "routstrd clients list",
    });
  }
  return conditions;
}

/** What is odd about the file itself; empty when nothing is. */
export function conditionsOfFile(path: string): readonly Condition[] {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined || process.platform === "win32" || (stats.mode & 0o006) === 0) return [];
  return [
    {
      code: "database_open_to_others",
      severity: "warning",
      text: `Every user of this machine can read the keys in ${path}.`,
      next: `chmod o= ${path}`,
    },
  ];
}
