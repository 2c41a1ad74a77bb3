/** The JSON Schema that editors get. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { plain, sample } from "../../test/support/config.ts";
import { configJsonSchema, SCHEMA_COMMENT, SCHEMA_ID } from "./json-schema.ts";

const FILE = join(import.meta.dir, "../../test/golden/config.schema.json");

// UPDATE_GOLDEN=1 writes the file anew; the difference is then reviewed.
test("the schema of the document with two plugins is the golden one", () => {
  const output = `${JSON.stringify(configJsonSchema([sample, plain]), null, 2)}\n`;
  if (process.env.UPDATE_GOLDEN === "1") writeFileSync(FILE, output);
  expect(output).toBe(readFileSync(FILE, "utf8"));
});

test("it has a title, an id and the description of every key", () => {
  const schema = configJsonSchema([sample]);
  expect(schema).toMatchObject({
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $id: SCHEMA_ID,
    title: "Gatehouse configuration",
    additionalProperties: false,
    required: ["version", "routes"],
  });
  const bare: string[] = [];
  visit(schema, "", (part, path) => {
    for (const [key, property] of Object.entries(part.properties ?? {})) {
      const isCondition = path.endsWith(".if");
      const isDescribed = typeof property === "object" && "description" in property;
      if (!isCondition && !isDescribed) bare.push(`${path}.${key}`);
    }
  });
  expect(bare).toEqual([]);
});

test("the settings of a strategy depend on its use, and unknown ones are refused", () => {
  const [branch] = strategySchema(configJsonSchema([sample])).allOf;
  expect(branch).toHaveProperty("if.properties.use", { const: "sample" });
  expect(branch).toHaveProperty("then.required", ["use"]);
  expect(branch).toHaveProperty("then.additionalProperties", false);
  expect(branch).toHaveProperty("then.properties.use");
  expect(branch).toHaveProperty("then.properties.sha256");
  expect(branch).toHaveProperty("then.properties.tries.default", 3);
});

test("the first line of generated files names a file beside them", () => {
  expect(SCHEMA_COMMENT).toBe("# yaml-language-server: $schema=./gatehouse.schema.json");
});

type Part = Record<string, unknown>;

function visit(part: unknown, path: string, look: (part: Part, path: string) => void): void {
  if (typeof part !== "object" || part === null) return;
  look(part as Part, path);
  for (const [key, inner] of Object.entries(part)) visit(inner, `${path}.${key}`, look);
}

function strategySchema(schema: ReturnType<typeof configJsonSchema>): { allOf: unknown[] } {
  const { strategies } = schema.properties as Record<string, { additionalProperties: unknown }>;
  return strategies!.additionalProperties as { allOf: unknown[] };
}
