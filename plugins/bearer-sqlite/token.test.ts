/** The form of a token, bit by bit. */
import { describe, expect, test } from "bun:test";
import { checksum, isId, newId, randomBase62, tokenForm } from "./token.ts";

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID = "0123456789Az";

describe("checksum", () => {
  // CRC-32/ISO-HDLC; the first is the check value of the CRC catalogue (reveng.sourceforge.io, "123456789" ->
  // cbf43926), the others are from zlib's crc32.
  test.each([
    ["123456789", 0xcbf43926],
    ["", 0x00000000],
    ["a", 0xe8b7be43],
    ["The quick brown fox jumps over the lazy dog", 0x414fa339],
  ])("the CRC-32 of %p is written in base62 with six characters", (text, crc) => {
    let value = 0;
    for (const digit of checksum(text)) value = value * 62 + ALPHABET.indexOf(digit);
    expect(value).toBe(crc);
    expect(checksum(text)).toHaveLength(6);
  });

  test("a small value is padded with 0 on the left", () => {
    expect(checksum("")).toBe("000000");
  });
});

describe("randomBase62", () => {
  test("every character of the alphabet comes up, about equally often", () => {
    const text = randomBase62(62_000);
    const counts = [...ALPHABET].map((character) => text.split(character).length - 1);
    // 1,000 expected, standard deviation 31.5: eight of them.
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(252);
    expect(text).toHaveLength(62_000);
    expect(text).toMatch(/^[0-9A-Za-z]*$/);
  });

  test("each byte below 248 stands for one character, four bytes for each; the rest is thrown away", () => {
    const seen = new Map<string, number>();
    for (let byte = 0; byte < 256; byte += 1) {
      let isFirst = true;
      const character = randomBase62(1, (bytes) => {
        bytes.fill(isFirst ? byte : 1);
        isFirst = false;
      });
      if (byte < 248) expect(character).toBe(ALPHABET.charAt(byte % 62));
      else expect(character).toBe("1");
      seen.set(character, (seen.get(character) ?? 0) + 1);
    }
    expect(seen.size).toBe(62);
  });
});

describe("tokenForm", () => {
  const form = tokenForm("gate");
  const token = form.issue(ID);

  test("a token is prefix, id, secret and checksum, one word to a double click", () => {
    expect(token).toMatch(/^gate_0123456789Az_[0-9A-Za-z]{39}$/);
    expect(token.endsWith(checksum(token.slice(0, -6)))).toBe(true);
    expect(form.read(token)).toEqual({ form: "own", id: ID });
  });

  test("the secret has at least 192 bits and is never the same twice", () => {
    expect(33 * Math.log2(62)).toBeGreaterThan(192);
    expect(new Set(Array.from({ length: 1000 }, () => form.issue(ID))).size).toBe(1000);
  });

  test("a token that was cut anywhere behind the id is broken, not foreign", () => {
    for (let length = "gate_".length + 13; length < token.length; length += 1) {
      expect(form.read(token.slice(0, length))).toEqual({ form: "broken" });
    }
  });

  test("every single wrong character is noticed without a lookup", () => {
    for (let place = 0; place < token.length; place += 1) {
      for (const other of `${ALPHABET}_-`) {
        if (other === token[place]) continue;
        const wrong = token.slice(0, place) + other + token.slice(place + 1);
        expect(form.read(wrong).form).not.toBe("own");
      }
    }
  });

  test("two neighbours that changed places are noticed", () => {
    for (let place = 5; place + 1 < token.length; place += 1) {
      const [a = "", b = ""] = [token[place], token[place + 1]];
      if (a === b) continue;
      const wrong = token.slice(0, place) + b + a + token.slice(place + 2);
      expect(form.read(wrong).form).not.toBe("own");
    }
  });

  test.each([
    ["another prefix", token.replace("gate", "gaze")],
    ["the prefix in capitals", token.replace("gate", "GATE")],
    ["an OpenAI key", "sk-proj-abcdefghijklmnop"],
    ["an id that is too short", token.replace(ID, ID.slice(1))],
    ["an id that is too long", token.replace(ID, `${ID}a`)],
    ["a line break at the end", `${token}\n`],
    ["a space in front", ` ${token}`],
    ["a letter that is not ASCII", token.replace("Az", "Aé")],
    ["the prefix alone", "gate_"],
    ["nothing", ""],
  ])("%s is foreign", (_, text) => {
    expect(form.read(text)).toEqual({ form: "foreign" });
  });

  test("junk is never taken for a token and is no fault", () => {
    for (let round = 0; round < 20_000; round += 1) {
      const junk = randomBase62(1 + (round % 80));
      expect(form.read(junk).form).toBe("foreign");
      expect(form.read(`gate_${junk}`).form).not.toBe("own");
      expect(form.read(`gate_${ID}_${junk}`).form).toBe("broken");
    }
  });

  test.each(["", "g", "Gate", "1gate", "ga_te", "gate-", "abcdefghijk", "g.te"])(
    "the prefix %p is a mistake of the caller",
    (prefix) => {
      expect(() => tokenForm(prefix)).toThrow(TypeError);
    },
  );

  test.each(["ga", "abcdefghij", "g1"])("the prefix %p is fine", (prefix) => {
    const own = tokenForm(prefix);
    expect(own.read(own.issue(ID))).toEqual({ form: "own", id: ID });
  });
});

describe("ids", () => {
  test("a fresh id is an id, and never the same", () => {
    const ids = Array.from({ length: 1000 }, newId);
    expect(ids.every(isId)).toBe(true);
    expect(new Set(ids).size).toBe(1000);
  });

  test.each(["", "short", "0123456789Az1", "0123456789A_", "0123456789A\n"])(
    "%p is no id",
    (text) => {
      expect(isId(text)).toBe(false);
    },
  );
});
