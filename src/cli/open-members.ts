/**
 * Opens the strategy whose members a command is about.
 *
 * Invariant: like every command it works on what the configuration says, and leaves nothing running.
 */
import type { MemberStore } from "../contract/members.ts";
import { type Keeping, type OpenedKeeper, type OpenOptions, openKeeper } from "../open-keeper.ts";

/** Opens the named strategy, or the only one that knows members. */
export type OpenMembers = (options: OpenOptions) => Promise<OpenedKeeper<MemberStore>>;

const MEMBERS: Keeping<MemberStore> = {
  what: "members",
  example: "nip98",
  of: ({ members }) => members,
};

/** @throws OperatorError as {@link openKeeper} does */
export const openMembers: OpenMembers = (options) => openKeeper(options, MEMBERS);
