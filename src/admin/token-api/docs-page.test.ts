/** The document and the page made from it. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { docsPage, STYLE_SOURCE } from "./docs-page.ts";
import { openApiDocument } from "./document.ts";
import { html } from "./html.ts";

const everything = [{ patterns: ["/api/**"], methods: [] }];

function operationsOf(document: ReturnType<typeof openApiDocument>): string[] {
  return Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
    Object.keys(item).map((method) => `${method} ${path}`),
  );
}

describe("the document", () => {
  test("has every operation where the API is mounted", () => {
    const operations = operationsOf(openApiDocument(everything, []));
    expect(operations).toHaveLength(15);
    expect(operations).toContain("get /api/me/tokens");
    expect(operations).toContain("post /api/users/{sub}/tokens/{id}/rotate");
  });

  test("has only what a route leads to", () => {
    const own = openApiDocument([{ patterns: ["/keys/me/tokens"], methods: ["GET"] }], []);
    expect(operationsOf(own)).toEqual(["get /keys/me/tokens"]);
  });

  test("names each operation once, also when it is mounted twice", () => {
    const twice = openApiDocument(
      [...everything, ...everything, { patterns: ["/v2/**"], methods: [] }],
      [],
    );
    const ids = Object.values(twice.paths ?? {}).flatMap((item) =>
      [item.get, item.post, item.delete].flatMap((one) => one?.operationId ?? []),
    );
    expect(ids).toHaveLength(30);
    expect(new Set(ids).size).toBe(30);
  });

  test("every reference leads somewhere, and every operation asks for a credential", () => {
    const document = openApiDocument(everything, ["https://llm.example.com"]);
    const text = JSON.stringify(document);
    const names = [...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name);
    const known = Object.keys(document.components?.schemas ?? {});
    expect([...new Set(names)].filter((name) => !known.includes(name ?? ""))).toEqual([]);
    expect(document.openapi).toBe("3.1.0");
    expect(document.servers).toEqual([{ url: "https://llm.example.com" }]);
    expect(document.components?.securitySchemes).toHaveProperty("bearer");
    for (const item of Object.values(document.paths ?? {})) {
      for (const operation of [item.get, item.post, item.delete]) {
        if (operation === undefined) continue;
        expect(operation.security).toEqual([{ bearer: [] }]);
        expect(operation.summary).not.toBe("");
        expect(Object.keys(operation.responses ?? {}).length).toBeGreaterThan(3);
      }
    }
  });

  test("no example looks like a secret", () => {
    const text = JSON.stringify(openApiDocument(everything, []));
    expect(text).not.toMatch(/gate_[0-9A-Za-z]{12}_/);
    expect(text).not.toMatch(/"[0-9A-Za-z]{32,}"/);
  });
});

describe("the page", () => {
  const document = openApiDocument(everything, []);
  const page = docsPage(document, "/openapi.json");

  test("shows every operation and every key", () => {
    for (const operation of operationsOf(document)) {
      const path = operation.split(" ")[1] ?? "";
      expect(page).toContain(`</span> ${path}</code>`);
    }
    for (const key of ["created_at", "grace_until", "expires_in", "X-Request-Id"]) {
      expect(page).toContain(key);
    }
    expect(page).toContain('<a href="/openapi.json">');
    expect(docsPage(document, null)).not.toContain("openapi.json");
  });

  test("runs nothing, loads nothing, and its style is the one that is named", () => {
    expect(page).not.toMatch(/<script|<link|<img|<iframe|\bon\w+=|javascript:|@import|url\(/i);
    expect(page).not.toMatch(/(?:src|href)="(?!\/openapi\.json"|#)/);
    expect(page).not.toMatch(/ style="/);
    const style = /<style>([\s\S]*?)<\/style>/.exec(page)?.[1] ?? "";
    const hash = createHash("sha256").update(style).digest("base64");
    expect(STYLE_SOURCE).toBe(`'sha256-${hash}'`);
  });

  test("every link inside leads to something", () => {
    const wanted = [...page.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id);
    expect(wanted.length).toBeGreaterThan(20);
    expect(wanted.filter((id) => !page.includes(`id="${id}"`))).toEqual([]);
  });

  test("what is put in is text", () => {
    const evil = `"><script>alert('x')</script>&`;
    expect(html`<p>${evil}</p>`.text).toBe(
      "<p>&#34;&#62;&#60;script&#62;alert(&#39;x&#39;)&#60;/script&#62;&#38;</p>",
    );
    expect(html`${[html`<b>${1}</b>`, html`<i>${"<"}</i>`]}`.text).toBe("<b>1</b><i>&#60;</i>");
  });
});
