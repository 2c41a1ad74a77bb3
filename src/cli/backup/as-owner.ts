/**
 * Work in a directory as the user it belongs to, when root runs the command for a service.
 *
 * Invariant: what root does below a directory that a service user can write to is never more than that user could do,
 * so a link planted there leads nowhere; and what is made there belongs to that user.
 */
import { statSync } from "node:fs";

/**
 * Runs `work` as the owner of `directory` (links followed), synchronously: the whole process is that user meanwhile.
 * Just runs it when we are not root, or root owns the directory, or it is not there.
 */
export function asOwnerOf<T>(directory: string, work: () => T): T {
  const owner = statSync(directory, { throwIfNoEntry: false });
  const { geteuid, getegid, getgroups, seteuid, setegid, setgroups } = process;
  if (owner === undefined || owner.uid === 0 || geteuid?.() !== 0) return work();
  if (!getegid || !getgroups || !seteuid || !setegid || !setgroups) return work();
  const [group, groups] = [getegid(), getgroups()];
  try {
    // The user last: afterwards the others could not be changed any more.
    setgroups([]);
    setegid(owner.gid);
    seteuid(owner.uid);
    return work();
  } finally {
    seteuid(0);
    setegid(group);
    setgroups(groups);
  }
}
