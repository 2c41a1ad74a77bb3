/** The verifier, against a published event and every mutation; and the queue that keeps it from delaying others. */
import { describe, expect, test } from "bun:test";
import { newKey, nostrHeader, signEvent } from "../../test/support/nostr.ts";
import { authRequest } from "../../test/support/request.ts";
import { findProof, type Proof } from "./proof.ts";
import { loadVerifier, openSignatureQueue } from "./signatures.ts";

const verify = await loadVerifier();

function fresh(content = ""): Proof {
  const header = nostrHeader(signEvent(newKey(), { content }));
  const found = findProof(authRequest({ headers: { authorization: header } }).headers);
  if (found.found !== "one") throw new Error("no proof");
  return found.proof;
}

/**
 * https://github.com/nostr-protocol/nips/blob/5cc23362a22da21258c0e1e220f0ae81f545f52e/98.md, the event in the example
 * header (the one shown as JSON has another tag name and another hash).
 */
const PUBLISHED: Proof = {
  id: "fe964e758903360f28d8424d092da8494ed207cba823110be3a57dfe4b578734",
  pubkey: "63fe6318dc58583cfe16810f86dd09e18bfd76aabc24a0081ce2856f330504ed",
  content: "",
  kind: 27_235,
  createdAt: 1_682_327_852,
  tags: [
    ["url", "https://api.snort.social/api/v1/n5sp/list"],
    ["method", "GET"],
  ],
  sig: "5ed9d8ec958bc854f997bdc24ac337d005af372324747efe4a00e24f4c30437ff4dd8308684bed467d9d6be3e5a517bb43b1732cc7d33949a3aaf86705c22184",
};

function flipped(hex: string, at: number): string {
  const digit = (Number.parseInt(hex.charAt(at), 16) ^ 1).toString(16);
  return hex.slice(0, at) + digit + hex.slice(at + 1);
}

describe("the verifier", () => {
  test("the published event is right, and with the tag as the specification shows it, is not", () => {
    expect(verify(PUBLISHED)).toBe(true);
    const [, method = []] = PUBLISHED.tags;
    const tags = [["u", "https://api.snort.social/api/v1/n5sp/list"], method];
    expect(verify({ ...PUBLISHED, tags })).toBe(false);
  });

  test.each(["", '"quoted" \\ / \b\f\n\r\t', "\u0000\u001f\u007f\u2028", "Пётр 😀", "</script>"])(
    "the id of content %p is what other implementations make of it",
    (content) => expect(verify(fresh(content))).toBe(true),
  );

  test.each<[string, (proof: Proof) => Proof]>([
    ["kind", (proof) => ({ ...proof, kind: proof.kind + 1 })],
    ["created_at", (proof) => ({ ...proof, createdAt: proof.createdAt + 1 })],
    ["content", (proof) => ({ ...proof, content: " " })],
    ["a tag more", (proof) => ({ ...proof, tags: [...proof.tags, []] })],
    ["a tag less", (proof) => ({ ...proof, tags: proof.tags.slice(1) })],
    ["tags in another order", (proof) => ({ ...proof, tags: proof.tags.toReversed() })],
    ["an element more", (proof) => ({ ...proof, tags: proof.tags.map((tag) => [...tag, ""]) })],
    ["another key", (proof) => ({ ...proof, pubkey: newKey().pubkey })],
    ["a key that is no point", (proof) => ({ ...proof, pubkey: "f".repeat(64) })],
    ["a key of zeros", (proof) => ({ ...proof, pubkey: "0".repeat(64) })],
    ["a signature of zeros", (proof) => ({ ...proof, sig: "0".repeat(128) })],
    ["a signature of ones", (proof) => ({ ...proof, sig: "f".repeat(128) })],
    ["the signature of another event", (proof) => ({ ...proof, sig: fresh().sig })],
    ["id and signature of another event", (proof) => ({ ...fresh(), tags: proof.tags })],
  ])("%s changed is wrong", (_, change) => {
    const proof = fresh();
    expect(verify(proof)).toBe(true);
    expect(verify(change(proof))).toBe(false);
  });

  test("each of the bytes of id, key and signature counts", () => {
    const proof = fresh();
    for (let at = 0; at < 64; at += 2) {
      expect(verify({ ...proof, id: flipped(proof.id, at) })).toBe(false);
      expect(verify({ ...proof, pubkey: flipped(proof.pubkey, at) })).toBe(false);
    }
    for (let at = 0; at < 128; at += 2) {
      expect(verify({ ...proof, sig: flipped(proof.sig, at) })).toBe(false);
    }
    expect(verify(proof)).toBe(true);
  });
});

describe("the queue", () => {
  test("at most one check runs per turn of the event loop, in order", async () => {
    const turns: number[] = [];
    let turn = 0;
    let isDone = false;
    const count = (): void => {
      turn += 1;
      if (!isDone) setImmediate(count);
    };
    setImmediate(count);
    const order: string[] = [];
    const queue = openSignatureQueue((proof) => {
      turns.push(turn);
      order.push(proof.id);
      return true;
    });
    const proofs = Array.from({ length: 20 }, () => fresh());
    await Promise.all(proofs.map((proof) => queue.check(proof)));
    isDone = true;
    expect(new Set(turns).size).toBe(20);
    expect(order).toEqual(proofs.map(({ id }) => id));
  });

  test("beyond the bound a check is a fault, and there is room again later", async () => {
    const queue = openSignatureQueue(() => true, 2);
    const proof = fresh();
    const waiting = [queue.check(proof), queue.check(proof)];
    await expect(queue.check(proof)).rejects.toThrow("more than 2");
    expect(await Promise.all(waiting)).toEqual([true, true]);
    expect(await queue.check(proof)).toBe(true);
  });

  test("a verifier that throws fails that check alone; closing refuses what waits", async () => {
    const bad = fresh();
    const queue = openSignatureQueue((proof) => {
      if (proof === bad) throw new Error("trap");
      return true;
    });
    const failing = queue.check(bad);
    const fine = queue.check(fresh());
    await expect(failing).rejects.toThrow("trap");
    expect(await fine).toBe(true);
    const waiting = queue.check(fresh());
    queue.close();
    queue.close();
    await expect(waiting).rejects.toThrow("shutting down");
    await expect(queue.check(fresh())).rejects.toThrow("shutting down");
  });
});
