/**
 * Text to HTML.
 *
 * Invariant: what is put into a template is escaped unless it came out of a template itself.
 */

/** Markup that may go into a page as it is. */
export class Html {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Part = string | number | Html | readonly Html[];

/** A template whose values are escaped. */
export function html(texts: TemplateStringsArray, ...values: readonly Part[]): Html {
  const shown = values.map(render);
  return new Html(String.raw({ raw: texts }, ...shown));
}

function render(value: Part): string {
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(render).join("");
  return String(value).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
