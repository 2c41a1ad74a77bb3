/**
 * The bundled plugins, in the order in which help and documentation list them.
 *
 * Invariant: this is the only file that imports plugins/*, and the list is written out: nothing is found by
 * scanning a directory.
 */
import bearerSqlite from "../plugins/bearer-sqlite/index.ts";
import nip98 from "../plugins/nip98/index.ts";
import oidc from "../plugins/oidc/index.ts";
import routstrd from "../plugins/routstrd/index.ts";
import staticEnv from "../plugins/static-env/index.ts";
import staticSite from "../plugins/static-site/index.ts";
import valkeyHash from "../plugins/valkey-hash/index.ts";
import type { Plugin } from "./contract/plugin.ts";

/** Every plugin that is part of the executable. */
export const bundledPlugins: readonly Plugin[] = [
  staticEnv,
  bearerSqlite,
  nip98,
  valkeyHash,
  oidc,
  routstrd,
  staticSite,
];
