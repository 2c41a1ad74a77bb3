/**
 * Answers of a server, read out of the bytes that came.
 *
 * Invariant: pure. Reading is lenient, because what is examined may be broken; what cannot be read is no answer.
 */

/** One response. */
export interface Answer {
  readonly status: number;
  /** Lower-case name and value, in order. */
  readonly fields: readonly (readonly [string, string])[];
  /** latin1, as far as it came. */
  readonly body: string;
}

interface Read {
  readonly answer: Answer;
  /** Where the next one begins. */
  readonly end: number;
}

/**
 * The final responses in `text`; 100 Continue and the like are left out, 101 is final.
 * @param methods of the requests that they answer
 * @param isOver nothing more will come
 */
export function readAnswers(
  text: string,
  methods: readonly string[],
  isOver: boolean,
): readonly Answer[] {
  const answers: Answer[] = [];
  let at = 0;
  while (answers.length < methods.length) {
    const read = readOne(text, at, methods[answers.length] ?? "GET", isOver);
    if (read === null) break;
    at = read.end;
    if (read.answer.status >= 200 || read.answer.status === 101) answers.push(read.answer);
  }
  return answers;
}

function readOne(text: string, from: number, method: string, isOver: boolean): Read | null {
  const headEnd = text.indexOf("\r\n\r\n", from);
  if (headEnd === -1) return null;
  const [line = "", ...rest] = text.slice(from, headEnd).split("\r\n");
  const status = Number(/^HTTP\/\d(?:\.\d)? (\d{3})/.exec(line)?.[1]);
  if (Number.isNaN(status)) return null;
  const fields = rest.map((one) => {
    const colon = one.indexOf(":");
    return [one.slice(0, colon).trim().toLowerCase(), one.slice(colon + 1).trim()] as const;
  });
  const start = headEnd + 4;
  const end = bodyEnd(text, start, { status, fields, method, isOver });
  if (end === null) return null;
  return { answer: { status, fields, body: text.slice(start, end) }, end };
}

interface Framed {
  readonly status: number;
  readonly fields: Answer["fields"];
  readonly method: string;
  readonly isOver: boolean;
}

/** Null when more has to come. */
function bodyEnd(text: string, start: number, framed: Framed): number | null {
  const { status, method, isOver } = framed;
  if (method === "HEAD" || status < 200 || status === 204 || status === 304) return start;
  const encoding = fieldOf(framed, "transfer-encoding");
  const length = fieldOf(framed, "content-length");
  const whole = isOver ? text.length : null;
  if (encoding !== null && /chunked/i.test(encoding)) {
    const last = text.indexOf("0\r\n\r\n", start);
    return last === -1 ? whole : last + 5;
  }
  if (length === null || !/^\d+$/.test(length)) return whole;
  const end = start + Number(length);
  return text.length >= end ? end : whole;
}

/** The first value of a field, or null. */
export function fieldOf({ fields }: Pick<Answer, "fields">, name: string): string | null {
  return fields.find(([one]) => one === name)?.[1] ?? null;
}

/** Whether Gatehouse itself gave this answer; proxies in front may take the header away. */
export function isOurs(answer: Answer): boolean {
  return fieldOf(answer, "x-gatehouse-reason") !== null;
}

/** The request was refused because of who asks. */
export function isRefusal({ status }: Answer): boolean {
  return status === 401 || status === 403 || status === 407;
}

/** Somebody served something. */
export function isServed({ status }: Answer): boolean {
  return (status >= 200 && status < 300) || status === 101;
}
