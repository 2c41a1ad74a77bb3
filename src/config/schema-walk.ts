/**
 * Looking into zod schemas: which keys an object has, what a path may hold, what is a secret.
 *
 * Invariant: reads schemas, never runs them.
 */
import { z } from "zod";
import type { ConfigPath } from "./issues.ts";

type Schema = z.core.$ZodType;

/** A schema and everything it wraps (optional, default, nullable, pipe), outermost first. */
function layers(schema: Schema): Schema[] {
  const found = [schema];
  for (let inner = innerOf(schema); inner !== undefined; inner = innerOf(inner)) found.push(inner);
  return found;
}

function innerOf(schema: Schema): Schema | undefined {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodReadonly ||
    schema instanceof z.ZodCatch
  ) {
    return schema.unwrap();
  }
  return schema instanceof z.ZodPipe ? schema.in : undefined;
}

/** The alternatives behind wrappers and unions; never empty. */
export function alternatives(schema: Schema): readonly Schema[] {
  const inner = layers(schema).at(-1) ?? schema;
  return inner instanceof z.ZodUnion ? inner.options.flatMap(alternatives) : [inner];
}

/** What may stand at `step` of a value of `schema`; empty when nothing may. */
export function childSchemas(schema: Schema, step: string | number): readonly Schema[] {
  return alternatives(schema).flatMap((one) => {
    if (one instanceof z.ZodObject) {
      const field: Schema | undefined = Object.hasOwn(one.shape, step)
        ? one.shape[step]
        : undefined;
      return field === undefined ? [] : [field];
    }
    if (one instanceof z.ZodRecord) return [one.valueType];
    return one instanceof z.ZodArray ? [one.element] : [];
  });
}

/** What may stand at `path` of a value of `schema`. */
export function schemasAt(schema: Schema, path: ConfigPath): readonly Schema[] {
  return path.reduce<readonly Schema[]>(
    (schemas, step) => schemas.flatMap((one) => childSchemas(one, step)),
    [schema],
  );
}

/** Names of the keys that objects of these schemas may have. */
export function keysOf(schemas: readonly Schema[]): readonly string[] {
  return schemas
    .flatMap(alternatives)
    .flatMap((one) => (one instanceof z.ZodObject ? Object.keys(one.shape) : []));
}

/** Whether a single value, not a map or list, may stand there. */
export function mayBeScalar(schema: Schema): boolean {
  return alternatives(schema).some(
    (one) =>
      !(one instanceof z.ZodObject || one instanceof z.ZodRecord || one instanceof z.ZodArray),
  );
}

/** Whether the value must be written as a reference: declared with `secret()`. */
export function isSecret(schema: Schema): boolean {
  return layers(schema).some((one) => z.globalRegistry.get(one)?.secret === true);
}

/** The description nearest to the outside, or undefined. */
export function descriptionOf(schema: Schema): string | undefined {
  for (const one of layers(schema)) {
    const description = z.globalRegistry.get(one)?.description;
    if (description !== undefined) return description;
  }
  return undefined;
}
