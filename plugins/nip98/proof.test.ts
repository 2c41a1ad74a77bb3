/** Which headers hold a proof at all: encoding, JSON, the shape of an event. */
import { describe, expect, test } from "bun:test";
import { newKey, nostrHeader, signEvent, tagsOf } from "../../test/support/nostr.ts";
import { authRequest } from "../../test/support/request.ts";
import { type FoundProof, findProof } from "./proof.ts";
import { parseStrict } from "./strict-json.ts";

/**
 * The header of https://github.com/nostr-protocol/nips/blob/5cc23362a22da21258c0e1e220f0ae81f545f52e/98.md. It was
 * signed when the tag was still called `url`.
 */
const PUBLISHED =
  "Nostr eyJpZCI6ImZlOTY0ZTc1ODkwMzM2MGYyOGQ4NDI0ZDA5MmRhODQ5NGVkMjA3Y2JhODIzMTEwYmUzYTU3ZGZlNGI1Nzg3MzQiLCJwdWJrZXkiOiI2M2ZlNjMxOGRjNTg1ODNjZmUxNjgxMGY4NmRkMDllMThiZmQ3NmFhYmMyNGEwMDgxY2UyODU2ZjMzMDUwNGVkIiwiY29udGVudCI6IiIsImtpbmQiOjI3MjM1LCJjcmVhdGVkX2F0IjoxNjgyMzI3ODUyLCJ0YWdzIjpbWyJ1cmwiLCJodHRwczovL2FwaS5zbm9ydC5zb2NpYWwvYXBpL3YxL241c3AvbGlzdCJdLFsibWV0aG9kIiwiR0VUIl1dLCJzaWciOiI1ZWQ5ZDhlYzk1OGJjODU0Zjk5N2JkYzI0YWMzMzdkMDA1YWYzNzIzMjQ3NDdlZmU0YTAwZTI0ZjRjMzA0MzdmZjRkZDgzMDg2ODRiZWQ0NjdkOWQ2YmUzZTVhNTE3YmI0M2IxNzMyY2M3ZDMzOTQ5YTNhYWY4NjcwNWMyMjE4NCJ9";

const EVENT = signEvent(newKey());
const JSON_TEXT = JSON.stringify(EVENT);

function find(...lines: readonly string[]): FoundProof {
  const headers = lines.map((line): [string, string] => ["authorization", line]);
  return findProof(authRequest({ headers }).headers);
}

function foundIn(text: string | Uint8Array): string {
  return find(`Nostr ${Buffer.from(text).toString("base64")}`).found;
}

/** The event's JSON with `value` written in place of what stands at `key`. */
function written(key: string, value: string): string {
  const entries = Object.entries(EVENT).map(
    ([name, own]) => `${JSON.stringify(name)}:${name === key ? value : JSON.stringify(own)}`,
  );
  return `{${entries.join(",")}}`;
}

describe("the header", () => {
  test("the published example is read", () => {
    const found = find(PUBLISHED);
    expect(found).toMatchObject({ found: "one", proof: { createdAt: 1_682_327_852 } });
  });

  test.each(["Nostr", "nostr", "NOSTR", "nOsTr"])("the scheme %s is ours", (scheme) => {
    expect(find(nostrHeader(EVENT).replace("Nostr", scheme)).found).toBe("one");
    expect(find(`  ${scheme} \t ${nostrHeader(EVENT).slice(6)} `).found).toBe("one");
  });

  test.each([
    "",
    "Bearer x",
    "Nostra eyJ9",
    "Nostr-Auth x",
    'Digest a="b", c="d"',
    "Bearer a, Nostr b",
  ])("%p is not ours", (value) => expect(find(value).found).toBe("none"));

  test("two lines, or a comma, are not chosen between", () => {
    const header = nostrHeader(EVENT);
    expect(find(header, header).found).toBe("ambiguous");
    expect(find("Bearer x", header).found).toBe("ambiguous");
    expect(find(`${header}, ${header}`).found).toBe("ambiguous");
    expect(find(`${header},`).found).toBe("ambiguous");
  });

  test("an event of 1 MB is refused before it is decoded", () => {
    const header = nostrHeader({ ...EVENT, content: "x".repeat(1_000_000) });
    const startMs = performance.now();
    expect(find(header).found).toBe("malformed");
    expect(performance.now() - startMs).toBeLessThan(50);
  });

  test("an event of 16 KiB is read and one byte more is not", () => {
    const room = 16 * 1024 - JSON_TEXT.length;
    expect(foundIn(JSON.stringify({ ...EVENT, content: "x".repeat(room) }))).toBe("one");
    expect(foundIn(JSON.stringify({ ...EVENT, content: "x".repeat(room + 1) }))).toBe("malformed");
  });
});

describe("base64", () => {
  // Characters beyond ASCII make digits that differ between the alphabets.
  const bytes = Buffer.from(JSON.stringify({ ...EVENT, content: "???>>>ÿÿÿ~~~" }));

  test("both alphabets, with and without padding", () => {
    const standard = bytes.toString("base64");
    const url = bytes.toString("base64url");
    expect(standard).not.toBe(url);
    const padded = url.padEnd(Math.ceil(url.length / 4) * 4, "=");
    for (const text of [standard, standard.replace(/=+$/, ""), url, padded]) {
      expect(find(`Nostr ${text}`).found).toBe("one");
    }
  });

  test.each<[string, (text: string) => string]>([
    ["a blank inside", (text) => `${text.slice(0, 8)} ${text.slice(8)}`],
    ["a line break inside", (text) => `${text.slice(0, 8)}\n${text.slice(8)}`],
    ["a character of no alphabet", (text) => `${text.slice(0, 8)}!${text.slice(8)}`],
    ["both alphabets at once", (text) => `-_+/${text}`],
    ["padding inside", (text) => `${text.slice(0, 8)}==${text.slice(8)}`],
    ["padding too much", (text) => `${text.replace(/=+$/, "")}===`],
    ["one digit too many", (text) => `${text.replace(/=+$/, "")}A`],
    ["nothing", () => ""],
    ["a data URL", (text) => `data:;base64;${text}`],
  ])("%s is refused", (_, change) => {
    expect(find(`Nostr ${change(bytes.toString("base64"))}`).found).toBe("malformed");
  });

  test("padding that does not fit the length is refused", () => {
    const text = Buffer.from(JSON.stringify({ ...EVENT, content: "x".repeat(30) }));
    for (let cut = 0; cut < 3; cut += 1) {
      const bare = Buffer.from(text.toString().replace("xxx", "x".repeat(cut))).toString(
        "base64url",
      );
      const right = (4 - (bare.length % 4)) % 4;
      for (const count of [0, 1, 2]) {
        const isFine = count === 0 || count === right;
        expect(find(`Nostr ${bare}${"=".repeat(count)}`).found).toBe(isFine ? "one" : "malformed");
      }
    }
  });

  test("bits that do not count must be zero", () => {
    const one = Buffer.from("{").toString("base64url");
    expect(one).toBe("ew");
    expect(find("Nostr ex").found).toBe("malformed");
  });
});

describe("the event", () => {
  test("the order of keys and white space do not matter, hex is folded to lower case", () => {
    const reversed = Object.fromEntries(Object.entries(EVENT).reverse());
    const upper = {
      ...EVENT,
      id: EVENT.id.toUpperCase(),
      pubkey: EVENT.pubkey.toUpperCase(),
      sig: EVENT.sig.toUpperCase(),
    };
    const plain = find(nostrHeader(EVENT));
    expect(find(nostrHeader(JSON.stringify(reversed, null, 4)))).toEqual(plain);
    expect(find(nostrHeader(upper))).toEqual(plain);
  });

  test.each([
    ["text that is not JSON", "{"],
    ["an empty text", " "],
    ["null", "null"],
    ["a list", `[${JSON_TEXT}]`],
    ["a string", JSON.stringify(JSON_TEXT)],
    ["a byte order mark", `\ufeff${JSON_TEXT}`],
    ["something after it", `${JSON_TEXT}x`],
    ["a comment", `/**/${JSON_TEXT}`],
    ["a NUL after it", `${JSON_TEXT}\0`],
    ["a further field", JSON_TEXT.replace("{", '{"relay":"x",')],
    ["a field of every object", JSON_TEXT.replace("{", '{"__proto__":{},')],
  ])("%s is no event", (_, text) => expect(foundIn(text)).toBe("malformed"));

  test("bytes that are no UTF-8 are no event", () => {
    const bytes = Buffer.from(JSON.stringify({ ...EVENT, content: "\u00ff" }));
    bytes[bytes.indexOf(0xc3)] = 0xff;
    expect(foundIn(bytes)).toBe("malformed");
  });

  test.each(["id", "pubkey", "sig", "kind", "created_at", "tags", "content"])(
    "without %s it is none",
    (field) => {
      const { [field as "id"]: _, ...rest } = EVENT;
      expect(foundIn(JSON.stringify(rest))).toBe("malformed");
    },
  );

  test.each([
    ["created_at", '"1767225600"'],
    ["created_at", "1767225600.0"],
    ["created_at", "1767225600.5"],
    ["created_at", "1.7672256e9"],
    ["created_at", "1e400"],
    ["created_at", "-1e400"],
    ["created_at", "9007199254740993"],
    ["created_at", "99999999999999999999999999"],
    ["created_at", "null"],
    ["created_at", "true"],
    ["created_at", "[1767225600]"],
    ["created_at", "{}"],
    ["kind", '"27235"'],
    ["kind", "27235.0"],
    ["kind", "2.7235e4"],
    ["kind", "1"],
    ["kind", "27236"],
    ["kind", "null"],
    ["id", "null"],
    ["id", '""'],
    ["id", JSON.stringify("0".repeat(63))],
    ["id", JSON.stringify("0".repeat(65))],
    ["id", JSON.stringify("g".repeat(64))],
    ["id", JSON.stringify(` ${"0".repeat(63)}`)],
    ["id", "0"],
    ["pubkey", JSON.stringify("0".repeat(66))],
    ["pubkey", "[]"],
    ["pubkey", JSON.stringify("ａ".repeat(64))],
    ["sig", JSON.stringify("0".repeat(126))],
    ["sig", JSON.stringify("0".repeat(130))],
    ["sig", "{}"],
    ["tags", "null"],
    ["tags", "{}"],
    ["tags", '"u"'],
    ["tags", '["u"]'],
    ["tags", '[["u",1]]'],
    ["tags", '[["u",null]]'],
    ["tags", '[["u",["x"]]]'],
    ["tags", '[{"0":"u","1":"x","length":2}]'],
    ["tags", '[["u","\\ud800"]]'],
    ["content", "null"],
    ["content", "0"],
    ["content", '["x"]'],
    ["content", '"\\ud800"'],
  ])("%s may not be %s", (field, value) => {
    expect(foundIn(written(field, value))).toBe("malformed");
  });

  test.each(["id", "pubkey", "sig", "kind", "created_at", "tags", "content"])(
    "%s twice is refused, whichever is right",
    (field) => {
      const own = JSON.stringify(EVENT[field as "id"]);
      expect(foundIn(JSON_TEXT.replace("{", `{${JSON.stringify(field)}:${own},`))).toBe(
        "malformed",
      );
      expect(foundIn(JSON_TEXT.replace(/\}$/, `,${JSON.stringify(field)}:${own}}`))).toBe(
        "malformed",
      );
      const escaped = `\\u00${field.charCodeAt(0).toString(16)}${field.slice(1)}`;
      expect(foundIn(JSON_TEXT.replace("{", `{"${escaped}":${own},`))).toBe("malformed");
    },
  );

  test("texts that look like JSON inside of strings do not confuse it", () => {
    for (const content of ['{"id":1,"id":2}', '"', "\\", '\\"', ":", "1.5", "{[", "\u2028"]) {
      expect(foundIn(JSON.stringify({ ...EVENT, content }))).toBe("one");
    }
  });

  test("10,000 levels of brackets are refused without a fault", () => {
    expect(foundIn("[".repeat(10_000) + "]".repeat(10_000))).toBe("malformed");
    expect(foundIn(written("tags", "[".repeat(7000) + "]".repeat(7000)))).toBe("malformed");
    expect(foundIn("[".repeat(16_000))).toBe("malformed");
  });

  test("every tag is kept as it is", () => {
    const tags = [...tagsOf({}), [], ["nonce", "a", "b"], ["x"]];
    expect(find(nostrHeader({ ...EVENT, tags }))).toMatchObject({ proof: { tags } });
  });
});

describe("strict JSON", () => {
  test.each([
    ["{}", {}],
    ['{"a":{"a":1},"b":[{"a":1},{"a":2}]}', { a: { a: 1 }, b: [{ a: 1 }, { a: 2 }] }],
    ['"a:b"', "a:b"],
    ["-1", -1],
  ])("%s has a value", (text, value) => expect(parseStrict(text)).toEqual(value));

  test.each([
    '{"a":1,"a":1}',
    '{"b":{"a":1,"a":1}}',
    '[{"a":[],"\\u0061":1}]',
    '{"":1,"":2}',
    "1.0",
    "1e1",
    "[1E400]",
    "{",
    "",
  ])("%s has none", (text) => expect(parseStrict(text)).toBeUndefined());
});
