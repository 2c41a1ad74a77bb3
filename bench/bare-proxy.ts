/**
 * For reference: what a proxy with a key costs when it is written in fifteen lines with what the runtime offers.
 *
 * Invariant: it does nothing that a gateway must do besides (header hygiene, paths, limits, audit); not for use.
 */
const { PORT, UPSTREAM, KEY } = process.env;

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(PORT),
  async fetch(request) {
    if (request.headers.get("authorization") !== `Bearer ${KEY}`) {
      return new Response("unauthorized", { status: 401 });
    }
    const { pathname, search } = new URL(request.url);
    const { method, headers } = request;
    const init = { method, headers, redirect: "manual", decompress: false } as const;
    const response = await fetch(`http://127.0.0.1:${UPSTREAM}${pathname}${search}`, init);
    return new Response(response.body, response);
  },
});
