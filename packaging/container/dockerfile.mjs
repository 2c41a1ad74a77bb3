/**
 * Reads a Dockerfile and carries its file steps out in directories, where no container engine is at hand.
 *
 * Invariant: an instruction, flag or form that is not understood here is an error with its line, never passed over;
 * nothing outside the given directory is written.
 */
import { chmodSync, cpSync, lchownSync, lstatSync, mkdirSync, readdirSync } from "node:fs";
import { dirname, join, posix } from "node:path";

/**
 * The instructions of a Dockerfile: `{ line, name, flags, words, text }`. `words` is the JSON array where there is
 * one, else what blanks separate. Throws with the line for what is not known here.
 */
export function parseDockerfile(source) {
  return logicalLines(source).map(({ line, text }) => {
    const [, name = "", rest = ""] = /^([A-Za-z]+)\s+(.*)$/s.exec(text) ?? [];
    const upper = name.toUpperCase();
    if (!Object.hasOwn(FLAGS, upper)) throw new Error(`line ${line}: ${text} is not known here`);
    const { flags, text: unflagged } = takeFlags(rest, FLAGS[upper], line);
    return { line, name: upper, flags, words: wordsOf(unflagged, upper, line), text: unflagged };
  });
}

/** What is understood, and with which flags. RUN is not: the image is built without running anything. */
const FLAGS = {
  ARG: [],
  CMD: [],
  COPY: ["chmod", "chown", "from"],
  ENTRYPOINT: [],
  ENV: [],
  EXPOSE: [],
  FROM: [],
  HEALTHCHECK: ["interval", "timeout", "start-period", "retries"],
  LABEL: [],
  STOPSIGNAL: [],
  USER: [],
  VOLUME: [],
  WORKDIR: [],
};

function logicalLines(source) {
  const found = [];
  let open = null;
  for (const [index, raw] of source.split("\n").entries()) {
    if (/^\s*#/.test(raw) || raw.trim() === "") continue;
    const isOpen = raw.endsWith("\\");
    const part = isOpen ? raw.slice(0, -1) : raw;
    if (open === null) open = { line: index + 1, text: "" };
    open.text += part;
    if (isOpen) continue;
    found.push({ line: open.line, text: open.text.trim() });
    open = null;
  }
  if (open !== null) throw new Error(`line ${open.line}: nothing follows the last backslash`);
  return found;
}

function takeFlags(text, known, line) {
  const flags = {};
  let rest = text;
  for (;;) {
    const found = /^--([a-z-]+)=(\S+)\s+/.exec(rest);
    if (found === null) break;
    const [whole, name, value] = found;
    if (!known.includes(name)) throw new Error(`line ${line}: --${name} is not known here`);
    flags[name] = value;
    rest = rest.slice(whole.length);
  }
  if (rest.startsWith("--")) throw new Error(`line ${line}: ${rest} is not known here`);
  return { flags, text: rest };
}

function wordsOf(text, name, line) {
  if (name === "HEALTHCHECK") {
    if (!text.startsWith("CMD ")) throw new Error(`line ${line}: expected HEALTHCHECK CMD`);
    return wordsOf(text.slice(4), "CMD", line);
  }
  if (text.startsWith("[")) return JSON.parse(text);
  if (name === "CMD" || name === "ENTRYPOINT") {
    throw new Error(`line ${line}: ${name} as text needs a shell, and there is none`);
  }
  return [...text.matchAll(/(?:"[^"]*"|[^\s"])+/g)].map(([word]) => word.replaceAll('"', ""));
}

/**
 * Carries out what the last stage needs.
 *
 * `source(path)` gives the real path of a file of the build context, or throws; `base(image, directory)` fills a
 * directory with what a base image holds; `args` are build arguments, the platform's among them. Resolves to
 * `{ root, config }`: the directory and what an engine would know about the image.
 */
export function carryOut(instructions, { directory, source, base, args, canOwn }) {
  const { globals, stages } = stagesOf(instructions, args);
  const built = new Map();
  const build = (index) => {
    const known = built.get(index);
    if (known !== undefined) return known;
    const stage = stages[index];
    const from = stages.findIndex((one, at) => at < index && one.name === stage.from);
    const root = join(directory, String(index));
    const image = { root, config: emptyConfig(), scope: {}, globals, args, canOwn, source };
    built.set(index, image);
    mkdirSync(root);
    if (from !== -1) inherit(image, build(from));
    else if (stage.from !== "scratch") base(stage.from, root);
    image.stage = (name) => {
      const at = stages.findIndex((one) => one.name === name);
      if (at === -1 || at >= index) throw new Error(`there is no stage ${name} before this one`);
      return build(at);
    };
    for (const step of stage.steps) STEPS[step.name](step, image);
    return image;
  };
  const { root, config } = build(stages.length - 1);
  return { root, config };
}

function emptyConfig() {
  return { user: "0:0", env: {}, workdir: "/", volumes: [], labels: {}, ports: [] };
}

function inherit(image, parent) {
  cpSync(parent.root, image.root, { recursive: true, preserveTimestamps: true });
  image.config = structuredClone(parent.config);
}

function stagesOf(instructions, args) {
  // What engines know of the platform can be used in FROM without ARG.
  const globals = { TARGETARCH: args.TARGETARCH };
  const stages = [];
  for (const step of instructions) {
    if (step.name === "FROM") {
      const [image, as, name] = step.words;
      if (as !== undefined && as.toUpperCase() !== "AS")
        throw new Error(`line ${step.line}: ${as}`);
      stages.push({ from: expand(image, globals, step.line), name: name ?? null, steps: [] });
    } else if (stages.length > 0) {
      stages.at(-1).steps.push(step);
    } else if (step.name === "ARG") {
      const [name, value] = argOf(step);
      globals[name] = args[name] ?? value;
    } else throw new Error(`line ${step.line}: ${step.name} before FROM`);
  }
  return { globals, stages };
}

function argOf({ text }) {
  const [name, ...value] = text.split("=");
  return [name, value.length === 0 ? undefined : value.join("=")];
}

/** `${NAME}` and `$NAME`; one that is not set is an error rather than an empty text. */
function expand(text, scope, line) {
  return text.replace(/\$\{(\w+)\}|\$(\w+)/g, (whole, braced, plain) => {
    const value = scope[braced ?? plain];
    if (value === undefined || value === "") throw new Error(`line ${line}: ${whole} has no value`);
    return value;
  });
}

function pairsOf({ words, line }, scope) {
  return words.map((word) => {
    const at = word.indexOf("=");
    if (at < 1) throw new Error(`line ${line}: expected NAME=VALUE`);
    return [word.slice(0, at), expand(word.slice(at + 1), scope, line)];
  });
}

const STEPS = {
  ARG(step, { scope, globals, args }) {
    const [name, value] = argOf(step);
    scope[name] = args[name] ?? value ?? globals[name];
  },
  LABEL: (step, { config, scope }) =>
    Object.assign(config.labels, Object.fromEntries(pairsOf(step, scope))),
  ENV: (step, { config, scope }) =>
    Object.assign(config.env, Object.fromEntries(pairsOf(step, scope))),
  EXPOSE: ({ words }, { config }) => config.ports.push(...words),
  VOLUME: ({ words }, { config }) => config.volumes.push(...words),
  STOPSIGNAL({ words }, { config }) {
    config.stopSignal = words[0];
  },
  ENTRYPOINT({ words }, { config }) {
    config.entrypoint = words;
  },
  CMD({ words }, { config }) {
    config.cmd = words;
  },
  HEALTHCHECK({ words, flags }, { config }) {
    config.healthcheck = { command: words, ...flags };
  },
  USER({ words, line }, { config }) {
    if (!/^\d+:\d+$/.test(words[0])) throw new Error(`line ${line}: expected USER NUMBER:NUMBER`);
    config.user = words[0];
  },
  WORKDIR({ words }, image) {
    image.config.workdir = posix.resolve(image.config.workdir, words[0]);
    mkdirSync(join(image.root, image.config.workdir), { recursive: true });
  },
  COPY: copy,
};

function copy({ words, flags, line }, image) {
  const [from, to, ...more] = words.map((word) => expand(word, image.scope, line));
  if (to === undefined || more.length > 0 || /[*?[]/.test(from)) {
    throw new Error(`line ${line}: expected COPY of one file or directory`);
  }
  const source =
    flags.from === undefined ? image.source(from) : join(image.stage(flags.from).root, from);
  const target = join(image.root, posix.resolve(image.config.workdir, to));
  mkdirSync(dirname(target), { recursive: true });
  // As engines do: of a directory its content is copied, into a directory that this makes.
  cpSync(source, target, { recursive: true, dereference: true });
  for (const path of everything(target)) setAttributes(path, flags, image.canOwn);
}

function* everything(path) {
  yield path;
  if (!lstatSync(path).isDirectory()) return;
  for (const name of readdirSync(path)) yield* everything(join(path, name));
}

function setAttributes(path, { chmod, chown = "0:0" }, canOwn) {
  const isDirectory = lstatSync(path).isDirectory();
  if (chmod !== undefined) chmodSync(path, Number.parseInt(chmod, 8));
  else if (isDirectory) chmodSync(path, 0o755);
  const [uid, gid] = chown.split(":").map(Number);
  if (canOwn) lchownSync(path, uid, gid);
}
