/** Lower case as the language has it, for every character. */
import { expect, test } from "bun:test";
import { lowerCase } from "./fields.ts";

test("lower case is what toLowerCase says, alone and among others", () => {
  for (let code = 0; code < 0x10000; code += 1) {
    const character = String.fromCharCode(code);
    for (const text of [character, `a${character}b`]) {
      if (lowerCase(text) !== text.toLowerCase()) throw new Error(`character ${code} is another`);
    }
  }
  expect(lowerCase("LLM.Example.com:8443")).toBe("llm.example.com:8443");
});
