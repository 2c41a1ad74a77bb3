/**
 * What goes in and out of the token API: the one source for validation and for the OpenAPI document.
 *
 * Invariant: unknown keys are errors. What is added to an answer is added; what is there keeps its name and meaning.
 */
import { z } from "@hono/zod-openapi";
import { parseDuration } from "../../contract/quantity.ts";
import { PROBLEM_REASONS } from "../answers.ts";

/** Of a description, after blanks around it are cut off. */
export const MAX_DESCRIPTION_BYTES = 256;

/** Most tokens in one page. */
export const MAX_LIMIT = 1000;

const time = (text: string) =>
  z.iso
    .datetime()
    .openapi({ description: `${text} RFC 3339, UTC.`, example: "2030-12-31T23:59:59Z" });
const timeOrNull = (text: string) =>
  z.iso
    .datetime()
    .nullable()
    .openapi({ description: `${text} RFC 3339, UTC; null when not set.`, example: null });

const duration = (text: string) =>
  z
    .string()
    .refine((value) => parseDuration(value) !== null, {
      error: "expected a duration such as 30s, 15m, 24h or 30d",
    })
    .openapi({ description: text, pattern: "^\\d{1,9}(ms|s|m|h|d|w)$", example: "30d" });

/** A token as it is shown. */
export const tokenSchema = z
  .object({
    id: z.string().openapi({ description: "Public name of the token.", example: "4fK2mPq8Zs1T" }),
    description: z
      .string()
      .nullable()
      .openapi({ description: "What it is for; null when nobody said.", example: "build server" }),
    name: z
      .string()
      .openapi({ description: "The same as on the command line; empty without one.", example: "" }),
    sub: z
      .string()
      .nullable()
      .openapi({ description: "Whose it is; null when it is nobody's.", example: "alice" }),
    role: z.enum(["user", "admin"]).openapi({ description: "What it may do on routes that ask." }),
    scopes: z.array(z.string()).openapi({ description: "Its scopes.", example: [] }),
    state: z
      .enum(["active", "expired", "not_yet_valid", "revoked"])
      .openapi({ description: "What it is worth at this moment." }),
    created_at: time("When it was made."),
    created_by: z
      .string()
      .nullable()
      .openapi({ description: "Who made it, if that is known.", example: "alice" }),
    expires_at: timeOrNull("When it ends."),
    not_before: timeOrNull("When it begins."),
    last_used_at: timeOrNull("When it was used last."),
    grace_until: timeOrNull("Until when the secret before the last rotation still works."),
    revoked_at: timeOrNull("When it was revoked."),
    foreign: z.boolean().openapi({ description: "Made elsewhere and imported.", example: false }),
  })
  .openapi("Token");

/** A token with its secret. */
export const issuedSchema = z
  .object({
    token: z
      .string()
      .openapi({ description: "The secret. It is shown this once.", example: "<shown once>" }),
    ...tokenSchema.shape,
  })
  .openapi("IssuedToken");

/** A refusal. */
export const problemSchema = z
  .object({
    type: z.string().openapi({ example: "urn:gatehouse:reason:token_not_found" }),
    title: z.string().openapi({ example: "Not Found" }),
    status: z.int().openapi({ example: 404 }),
    detail: z.string().openapi({ description: "For people.", example: "token not found" }),
    message: z.string().optional().openapi({
      description: "The same as detail. Absent when the gateway refuses before the API is asked.",
      example: "token not found",
    }),
    reason: z.string().openapi({
      description: `Stable code: ${PROBLEM_REASONS.join(", ")}, or one of the gateway's.`,
    }),
    request_id: z.string().openapi({ description: "Also in the log." }),
  })
  .openapi("Problem", { description: "A refusal (RFC 9457)." });

const draft = {
  description: z
    .string()
    .optional()
    .openapi({
      description: `What it is for: at most ${MAX_DESCRIPTION_BYTES} bytes of UTF-8 without control characters. Blanks around it are cut off.`,
      example: "build server",
    }),
  expires_at: z.iso
    .datetime({ offset: true, error: "expected a time such as 2030-12-31T23:59:59Z" })
    .optional()
    .openapi({ description: "When it ends. Without it and expires_in it does not end." }),
  expires_in: duration("How long it lives, instead of expires_at.").optional(),
  scopes: z.array(z.string()).max(64).optional().openapi({
    description: "At most 64. Who is no admin can only give scopes that they have themselves.",
    example: [],
  }),
};

const role = z
  .enum(["user", "admin"])
  .optional()
  .openapi({ description: "What it may do on routes that ask for a role. Default user." });

/** A new token of one's own. Its role is always user. */
export const ownDraftSchema = z.strictObject(draft).openapi("NewToken");

/** What an admin makes for the subject in the path. */
export const userDraftSchema = z.strictObject({ ...draft, role }).openapi("NewTokenForUser");

/** What an admin makes for the subject in the body, which may hold anything. */
export const anyDraftSchema = z
  .strictObject({
    sub: z.string().openapi({ description: "Whose it will be.", example: "alice" }),
    ...draft,
    role,
  })
  .openapi("NewTokenFor");

/** How a token is rotated. */
export const rotationSchema = z
  .strictObject({
    grace: duration("How long the old secret still works. Default: not at all.").optional(),
  })
  .openapi("Rotation");

/** Parameters of paths. */
export const subParam = z.object({
  sub: z.string().openapi({
    param: { name: "sub", in: "path" },
    description:
      "Subject, percent-encoded. Blanks around it are cut off. Some cannot be written in a path (`.`, control characters, long ones with many escapes); the endpoints below /tokens reach them too.",
    example: "alice",
  }),
});
export const idParam = z.object({
  id: z.string().openapi({
    param: { name: "id", in: "path" },
    description: "Id of the token.",
    example: "4fK2mPq8Zs1T",
  }),
});
export const subAndIdParams = subParam.extend(idParam.shape);

const limit = z
  .string()
  .regex(/^\d{1,4}$/)
  .transform(Number)
  .refine((count) => count >= 1 && count <= MAX_LIMIT, { error: `expected 1 to ${MAX_LIMIT}` })
  .optional();

const query = {
  q: z
    .string()
    .max(256)
    .optional()
    .openapi({ description: "Only tokens that hold this, in any case, in description or id." }),
  limit: limit.openapi({
    type: "integer",
    minimum: 1,
    maximum: MAX_LIMIT,
    description: "Most tokens in one answer. Without it, all.",
  }),
  cursor: z
    .string()
    .max(4096)
    .optional()
    .openapi({ description: "Where to go on: from the Link of the answer before." }),
  sort: z
    .enum(["-created_at", "created_at", "description", "-description"])
    .default("-created_at")
    .openapi({ description: "Order; with - the other way round. Default: newest first." }),
  revoked: z
    .enum(["true", "false"])
    .default("false")
    .openapi({ description: "Whether tokens that were revoked are listed, where they are kept." }),
};

/** How the tokens of one subject are listed. */
export const listQuerySchema = z.strictObject(query);

/** How everybody's are. */
export const anyListQuerySchema = z.strictObject({
  ...query,
  q: query.q.openapi({
    description: "Only tokens that hold this, in any case, in description, id or sub.",
  }),
  limit: limit.openapi({
    type: "integer",
    minimum: 1,
    maximum: MAX_LIMIT,
    default: 100,
    description: "Most tokens in one answer. Default 100.",
  }),
  sub: z.string().optional().openapi({ description: "Only this subject's, to the letter." }),
});

export type TokenJson = z.infer<typeof tokenSchema>;
export type IssuedJson = z.infer<typeof issuedSchema>;
export type OwnDraft = z.infer<typeof ownDraftSchema>;
export type UserDraft = z.infer<typeof userDraftSchema>;
export type Rotation = z.infer<typeof rotationSchema>;
export type ListQuery = z.infer<typeof listQuerySchema>;
