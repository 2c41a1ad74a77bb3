/**
 * The operations of the token API: paths, what goes in, what comes out.
 *
 * Invariant: the same definitions validate requests and make the OpenAPI document; paths are relative to where the
 * surface is mounted.
 */
import { createRoute, type z } from "@hono/zod-openapi";
import { strictJson } from "./body.ts";
import {
  anyDraftSchema,
  anyListQuerySchema,
  idParam,
  issuedSchema,
  listQuerySchema,
  ownDraftSchema,
  problemSchema,
  rotationSchema,
  subAndIdParams,
  subParam,
  tokenSchema,
  userDraftSchema,
} from "./schemas.ts";

const OWN = "Your own tokens";
const USER = "Tokens of one user (admins)";
const ALL = "Tokens of everybody (admins)";

const security = [{ bearer: [] }];

/** Answers that every operation has, made by the gateway before ours. */
const ALWAYS = {
  400: problem("The path or a header cannot be read, or holds a credential where none belongs."),
  401: problem("No credential, or one that is not valid."),
  403: problem("The identity may not do this."),
  422: problem("The request does not fit the schema."),
  503: problem("The store cannot be asked at the moment. Try again."),
};

const MISSING = { 404: problem("There is no such token, or it is somebody else's.") };

const UNREADABLE = {
  400: problem("The body is not JSON, or a value in it cannot be used."),
  413: problem("The body is over 64 KiB."),
  415: problem("The body is not application/json."),
};

const LISTED = {
  200: {
    description: "The tokens. With limit, Link has the next page.",
    content: { "application/json": { schema: tokenSchema.array() } },
    headers: {
      "X-Total-Count": {
        description: "How many there are in all pages.",
        required: true,
        schema: { type: "integer" as const },
      },
      Link: {
        description: "The next page, relative, as rel=next (RFC 8288). Absent on the last one.",
        schema: { type: "string" as const },
      },
    },
  },
  ...ALWAYS,
};

const SHOWN = {
  200: {
    description: "The token.",
    content: { "application/json": { schema: tokenSchema } },
  },
  ...MISSING,
  ...ALWAYS,
};

const CREATED = {
  201: {
    description: "The token, with its secret, this once.",
    content: { "application/json": { schema: issuedSchema } },
    headers: {
      Location: {
        description: "The token, relative.",
        required: true,
        schema: { type: "string" as const },
      },
    },
  },
  ...ALWAYS,
  ...UNREADABLE,
};

const ROTATED = {
  200: {
    description: "The token, with its new secret, this once.",
    content: { "application/json": { schema: issuedSchema } },
  },
  409: problem("It was revoked or rotated at the same time."),
  ...MISSING,
  ...ALWAYS,
  ...UNREADABLE,
};

const REVOKED = {
  204: { description: "It does not work any more." },
  ...MISSING,
  ...ALWAYS,
};

function problem(description: string) {
  return { description, content: { "application/problem+json": { schema: problemSchema } } };
}

function json<Schema extends z.ZodType>(schema: Schema) {
  return { required: true, content: { "application/json": { schema } } };
}

const own = { tags: [OWN], security };
const user = { tags: [USER], security };
const all = { tags: [ALL], security };

/** Every operation. */
export const ROUTES = {
  listOwn: createRoute({
    ...own,
    operationId: "listOwnTokens",
    summary: "List your tokens",
    method: "get",
    path: "/me/tokens",
    request: { query: listQuerySchema },
    responses: LISTED,
  }),
  createOwn: createRoute({
    ...own,
    operationId: "createOwnToken",
    summary: "Make a token",
    description: "Its role is user. A token cannot make tokens.",
    method: "post",
    path: "/me/tokens",
    middleware: strictJson,
    request: { body: json(ownDraftSchema) },
    responses: CREATED,
  }),
  showOwn: createRoute({
    ...own,
    operationId: "showOwnToken",
    summary: "Show a token",
    method: "get",
    path: "/me/tokens/{id}",
    request: { params: idParam },
    responses: SHOWN,
  }),
  rotateOwn: createRoute({
    ...own,
    operationId: "rotateOwnToken",
    summary: "Give a token a new secret",
    description: "The id stays. A token with more rights than you have cannot be rotated.",
    method: "post",
    path: "/me/tokens/{id}/rotate",
    middleware: strictJson,
    request: { params: idParam, body: json(rotationSchema) },
    responses: ROTATED,
  }),
  revokeOwn: createRoute({
    ...own,
    operationId: "revokeOwnToken",
    summary: "Revoke a token",
    description: "It holds on the next request.",
    method: "delete",
    path: "/me/tokens/{id}",
    request: { params: idParam },
    responses: REVOKED,
  }),
  listOfUser: createRoute({
    ...user,
    operationId: "listTokensOfUser",
    summary: "List a user's tokens",
    description: "Empty for a subject that nobody has heard of.",
    method: "get",
    path: "/users/{sub}/tokens",
    request: { params: subParam, query: listQuerySchema },
    responses: LISTED,
  }),
  createForUser: createRoute({
    ...user,
    operationId: "createTokenForUser",
    summary: "Make a token for a user",
    description: "The user need not be known.",
    method: "post",
    path: "/users/{sub}/tokens",
    middleware: strictJson,
    request: { params: subParam, body: json(userDraftSchema) },
    responses: CREATED,
  }),
  showOfUser: createRoute({
    ...user,
    operationId: "showTokenOfUser",
    summary: "Show a user's token",
    method: "get",
    path: "/users/{sub}/tokens/{id}",
    request: { params: subAndIdParams },
    responses: SHOWN,
  }),
  rotateOfUser: createRoute({
    ...user,
    operationId: "rotateTokenOfUser",
    summary: "Give a user's token a new secret",
    method: "post",
    path: "/users/{sub}/tokens/{id}/rotate",
    middleware: strictJson,
    request: { params: subAndIdParams, body: json(rotationSchema) },
    responses: ROTATED,
  }),
  revokeOfUser: createRoute({
    ...user,
    operationId: "revokeTokenOfUser",
    summary: "Revoke a user's token",
    method: "delete",
    path: "/users/{sub}/tokens/{id}",
    request: { params: subAndIdParams },
    responses: REVOKED,
  }),
  listAll: createRoute({
    ...all,
    operationId: "listTokens",
    summary: "List everybody's tokens",
    method: "get",
    path: "/tokens",
    request: { query: anyListQuerySchema },
    responses: LISTED,
  }),
  createForAny: createRoute({
    ...all,
    operationId: "createToken",
    summary: "Make a token for any subject",
    method: "post",
    path: "/tokens",
    middleware: strictJson,
    request: { body: json(anyDraftSchema) },
    responses: CREATED,
  }),
  show: createRoute({
    ...all,
    operationId: "showToken",
    summary: "Show any token",
    method: "get",
    path: "/tokens/{id}",
    request: { params: idParam },
    responses: SHOWN,
  }),
  rotate: createRoute({
    ...all,
    operationId: "rotateToken",
    summary: "Give any token a new secret",
    method: "post",
    path: "/tokens/{id}/rotate",
    middleware: strictJson,
    request: { params: idParam, body: json(rotationSchema) },
    responses: ROTATED,
  }),
  revoke: createRoute({
    ...all,
    operationId: "revokeToken",
    summary: "Revoke any token",
    method: "delete",
    path: "/tokens/{id}",
    request: { params: idParam },
    responses: REVOKED,
  }),
} as const;
