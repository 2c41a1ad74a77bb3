/**
 * The OpenAPI document as a page to read.
 *
 * Invariant: the page is whole as it comes: no script, nothing loaded from anywhere, its style named by hash in the
 * content security policy.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { OpenApiDocument } from "./document.ts";
import { Html, html } from "./html.ts";

type Paths = NonNullable<OpenApiDocument["paths"]>;
type Operation = NonNullable<Paths[string]["get"]>;

/** As much of a schema as is shown. */
const readSchema = z.object({
  $ref: z.string().optional(),
  type: z.union([z.string(), z.array(z.string())]).default(""),
  format: z.string().optional(),
  description: z.string().default(""),
  enum: z.array(z.unknown()).default([]),
  items: z.unknown().optional(),
  properties: z.record(z.string(), z.unknown()).default({}),
  required: z.array(z.string()).default([]),
});

const readAnswer = z.object({
  description: z.string().default(""),
  content: z.record(z.string(), z.object({ schema: z.unknown() })).default({}),
});

interface Placed {
  readonly method: string;
  readonly path: string;
  readonly operation: Operation;
}

const METHODS = ["get", "post", "patch", "put", "delete"] as const;

const STYLE = `:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:.9em/1.5 ui-monospace,monospace}
pre{overflow-x:auto;padding:.75rem;border:1px solid #8884;border-radius:4px}
h2{margin-top:3rem;border-bottom:1px solid #8884}
h3{margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #8884}
.method{font-weight:700;text-transform:uppercase}`;

/** CSP source of the page's style. */
export const STYLE_SOURCE = `'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`;

/** @param documentUrl where the document itself is, relative to the page; `null`: nowhere */
export function docsPage(document: OpenApiDocument, documentUrl: string | null): string {
  const operations = operationsOf(document);
  const tags = [...new Set(operations.map(({ operation }) => operation.tags?.[0] ?? ""))];
  const schemas = Object.entries(document.components?.schemas ?? {});
  const { title, description = "" } = document.info;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${new Html(STYLE)}</style>
</head>
<body>
<h1>${title}</h1>
${description.split("\n\n").map((text) => html`<p>${text}</p>\n`)}
${documentUrl === null ? "" : html`<p><a href="${documentUrl}">OpenAPI document</a></p>`}
${tags.map((tag) => section(tag, operations))}
<h2>Schemas</h2>
${schemas.map(([name, schema]) => schemaPart(name, schema))}
</body>
</html>
`;
  return page.text;
}

function operationsOf({ paths = {} }: OpenApiDocument): Placed[] {
  return Object.entries(paths).flatMap(([path, item]) =>
    METHODS.flatMap((method) => {
      const operation = item[method];
      return operation === undefined ? [] : [{ method, path, operation }];
    }),
  );
}

function section(tag: string, operations: readonly Placed[]): Html {
  const own = operations.filter(({ operation }) => (operation.tags?.[0] ?? "") === tag);
  return html`<h2>${tag}</h2>\n${own.map(operationPart)}`;
}

function operationPart({ method, path, operation }: Placed): Html {
  const { summary = "", description = "" } = operation;
  return html`<section id="${operation.operationId ?? ""}">
<h3>${summary}</h3>
<p><code><span class="method">${method}</span> ${path}</code></p>
${description === "" ? "" : html`<p>${description}</p>`}
${parametersPart(operation)}
${bodyPart(operation)}
${answersPart(operation)}
</section>
`;
}

function parametersPart({ parameters = [] }: Operation): Html {
  const rows = parameters.flatMap((one) => {
    if ("$ref" in one) return [];
    const { name, in: place, required, description = "", schema } = one;
    const need = required === true ? " (required)" : "";
    return [
      html`<tr><td><code>${name}</code></td><td>${place}${need}</td><td>${typeOf(schema)}</td><td>${description}</td></tr>\n`,
    ];
  });
  return rows.length === 0
    ? html``
    : html`<table><tr><th>Parameter</th><th>Where</th><th>Type</th><th>What it is</th></tr>\n${rows}</table>`;
}

function bodyPart({ requestBody }: Operation): Html {
  if (requestBody === undefined || "$ref" in requestBody) return html``;
  const names = Object.entries(requestBody.content).map(
    ([type, { schema }]) => html`<p>Body: ${schemaLink(schema)} as <code>${type}</code></p>`,
  );
  return html`${names}`;
}

function answersPart({ responses = {} }: Operation): Html {
  const rows = Object.entries(responses).map(([status, answer]) => {
    const { description, content } = readAnswer.parse(answer);
    const [schema] = Object.values(content).map((one) => one.schema);
    return html`<tr><td>${status}</td><td>${schemaLink(schema)}</td><td>${description}</td></tr>\n`;
  });
  return html`<table><tr><th>Answer</th><th>Body</th><th>When</th></tr>\n${rows}</table>`;
}

function schemaPart(name: string, schema: unknown): Html {
  const { properties, required } = readSchema.parse(schema);
  const rows = Object.entries(properties).map(([key, property]) => {
    const need = required.includes(key) ? "" : " (optional)";
    const { description } = readSchema.parse(property);
    return html`<tr><td><code>${key}</code>${need}</td><td>${typeOf(property)}</td><td>${description}</td></tr>\n`;
  });
  return html`<h3 id="schema-${name}">${name}</h3>
<table><tr><th>Key</th><th>Type</th><th>What it is</th></tr>\n${rows}</table>
`;
}

/** A link to a schema by name, or its type. */
function schemaLink(schema: unknown): Html {
  if (schema === undefined) return html``;
  const { $ref, items } = readSchema.parse(schema);
  if (items !== undefined) return html`list of ${schemaLink(items)}`;
  const name = $ref?.split("/").at(-1);
  return name === undefined ? typeOf(schema) : html`<a href="#schema-${name}">${name}</a>`;
}

function typeOf(schema: unknown): Html {
  const { type, items, enum: values, format } = readSchema.parse(schema);
  if (items !== undefined) return html`list of ${typeOf(items)}`;
  if (values.length > 0) return html`${values.join(" or ")}`;
  const name = (Array.isArray(type) ? type : [type]).join(" or ");
  return html`${format === undefined ? name : name.replace("string", format)}`;
}
