/**
 * What a user of a Valkey needs, and a way to ask for it that writes nothing.
 *
 * Invariant: the script only asks the server about rights (`redis.acl_check_cmd`, Redis 7.0 and every Valkey); no command
 * in the lists is run.
 */

/** A command with the arguments that rights depend on; `KEY` stands for a key of ours. */
export type Command = readonly [string, ...string[]];

/** What a use of Valkey needs. */
export interface Needs {
  /** A key that such a use would touch. */
  readonly key: string;
  /** Without one of these requests are answered 503. */
  readonly serving: readonly Command[];
  /** Without one of these tokens cannot be kept, or revocations not told. */
  readonly keeping: readonly Command[];
  /** Without one of these each request asks the server. */
  readonly following: readonly Command[];
}

const FOLLOWING: readonly Command[] = [
  ["client", "id"],
  ["client", "tracking", "on"],
  ["subscribe", "__redis__:invalidate"],
];

/** docs/valkey.md lists the same. */
export const TOKEN_NEEDS: Needs = {
  key: "auth:token:doctor",
  serving: [
    ["hmget", "KEY", "sub"],
    ["hget", "KEY", "sub"],
    ["pttl", "KEY"],
  ],
  keeping: [
    ["exists", "KEY"],
    ["hset", "KEY", "a", "b"],
    ["hexists", "KEY", "a"],
    ["pexpire", "KEY", "1000"],
    ["del", "KEY"],
    ["sadd", "KEY", "a"],
    ["srem", "KEY", "a"],
    ["smembers", "KEY"],
    ["scan", "0"],
    ["set", "KEY", "a"],
    ["get", "KEY"],
  ],
  following: FOLLOWING,
};

/** State that replicas have in common. */
export function sharedNeeds(prefix: string): Needs {
  return {
    key: `${prefix}{claims}:doctor`,
    serving: [
      ["hmget", "KEY", "run"],
      ["hset", "KEY", "run", "a"],
      ["exists", "KEY"],
      ["set", "KEY", "1", "PX", "1000"],
      ["pttl", "KEY"],
      ["scan", "0"],
    ],
    keeping: [],
    following: FOLLOWING,
  };
}

/** Answers the numbers, from 1, of the commands that may not be run. */
const SCRIPT = `#!lua flags=no-writes
local denied = {}
for number, text in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(text, '[^\\t]+') do
    if word == 'KEY' then word = KEYS[1] end
    words[#words + 1] = word
  end
  if not redis.acl_check_cmd(unpack(words)) then denied[#denied + 1] = number end
end
return denied`;

/** The command that asks about `commands`. */
export function rightsQuestion(key: string, commands: readonly Command[]): [string, ...string[]] {
  return ["eval", SCRIPT, "1", key, ...commands.map((words) => words.join("\t"))];
}

/** Those of `commands` that the answer to {@link rightsQuestion} says may not be run; null for another answer. */
export function deniedIn(answer: unknown, commands: readonly Command[]): readonly Command[] | null {
  if (!Array.isArray(answer)) return null;
  const numbers = new Set(answer.map(Number));
  return commands.filter((_, at) => numbers.has(at + 1));
}

/** `client|id`, as ACL rules name a command. */
export function ruleName([name, first]: Command): string {
  return name === "client" ? `+client|${first}` : `+${name}`;
}
