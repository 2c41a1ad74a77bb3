/**
 * The auth service behind nginx `auth_request` and Caddy `forward_auth`: 200 for the one key, 401 for all else.
 *
 * Invariant: as cheap as such a service can be on this runtime: no lookup, no log, no body. `PORT` and `KEY` say
 * where and which.
 */
const expected = `Bearer ${process.env.KEY}`;

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch: (request) =>
    new Response(null, { status: request.headers.get("authorization") === expected ? 200 : 401 }),
});
