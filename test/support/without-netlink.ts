/**
 * Runs a program as a service is run by the unit in packaging/: sockets of the families AF_UNIX, AF_INET and
 * AF_INET6 only. `bun without-netlink.ts PROGRAM ARG…`; exits with 99 where that cannot be done.
 *
 * Invariant: what follows is the program itself, in this process, with a filter that it cannot take off.
 */
import { dlopen, ptr } from "bun:ffi";

/** prctl(2): PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP with SECCOMP_MODE_FILTER. */
const [NO_NEW_PRIVS, SET_SECCOMP, MODE_FILTER] = [38, 22, 2];
const SOCKET = { x64: 41, arm64: 198 }[process.arch as "x64" | "arm64"];
const EAFNOSUPPORT = 97;

/** linux/filter.h: load a word of the call, compare, return. */
const [LOAD, EQUAL, RETURN] = [0x20, 0x15, 0x06];
const [ALLOW, REFUSE] = [0x7fff0000, 0x00050000 | EAFNOSUPPORT];
/** Offsets in struct seccomp_data. */
const [CALL, FIRST_ARGUMENT] = [0, 16];

const rules: readonly (readonly [code: number, ifTrue: number, ifFalse: number, value: number])[] =
  [
    [LOAD, 0, 0, CALL],
    [EQUAL, 0, 5, SOCKET],
    [LOAD, 0, 0, FIRST_ARGUMENT],
    [EQUAL, 3, 0, 1],
    [EQUAL, 2, 0, 2],
    [EQUAL, 1, 0, 10],
    [RETURN, 0, 0, REFUSE],
    [RETURN, 0, 0, ALLOW],
  ];

const [program, ...args] = process.argv.slice(2);
if (program === undefined || SOCKET === undefined) process.exit(99);

const { symbols: libc } = dlopen("libc.so.6", {
  prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" },
  execv: { args: ["ptr", "ptr"], returns: "i32" },
});

const filter = Buffer.alloc(rules.length * 8);
rules.forEach(([code, ifTrue, ifFalse, value], index) => {
  filter.writeUInt16LE(code, index * 8);
  filter.writeUInt8(ifTrue, index * 8 + 2);
  filter.writeUInt8(ifFalse, index * 8 + 3);
  filter.writeUInt32LE(value, index * 8 + 4);
});
const header = Buffer.alloc(16);
header.writeUInt16LE(rules.length, 0);
header.writeBigUInt64LE(BigInt(ptr(filter)), 8);

const words = [program, ...args].map((word) => Buffer.from(`${word}\0`));
const argv = new BigUint64Array([...words.map((word) => BigInt(ptr(word))), 0n]);

if (libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) process.exit(99);
if (libc.prctl(SET_SECCOMP, MODE_FILTER, ptr(header), 0, 0) !== 0) process.exit(99);
libc.execv(words[0] ?? Buffer.alloc(1), argv);
process.exit(99);
