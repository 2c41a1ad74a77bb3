/**
 * The script for fish.
 *
 * Invariant: see completion.ts. Nothing on the line is evaluated.
 */
import type { Kind, ScriptOption, ScriptVerb } from "../completion.ts";
import { fishQuoted } from "./quoting.ts";

/** The whole script. */
export function fishScript(verbs: readonly ScriptVerb[]): string {
  const paths = verbs.map(({ path }) => path).filter((path) => path !== "");
  const groups = verbs.filter((verb) => verb.verbs.length > 0).map(({ path }) => path);
  return `# fish completion for gatehouse. To use it now: gatehouse completion fish | source
# For every shell: gatehouse completion fish > ~/.config/fish/completions/gatehouse.fish

# Whether the verb on the line is this one.
function __gatehouse_at
    set -l known ${paths.map(fishQuoted).join(" ")}
    set -l groups ${groups.map(fishQuoted).join(" ")}
    set -l path ''
    for word in (commandline -opc)[2..-1]
        set -l next (string trim -- "$path $word")
        if not contains -- $next $known
            # A word that is no verb of this group: nothing that follows is known.
            contains -- "$path" $groups; and return 1
            break
        end
        set path $next
    end
    test "$path" = "$argv[1]"
end

complete -c gatehouse -f
${verbs.flatMap(lines).join("\n")}
`;
}

function lines({ path, verbs, options, argument }: ScriptVerb): string[] {
  const start = `complete -c gatehouse -n ${fishQuoted(`__gatehouse_at ${fishQuoted(path)}`)}`;
  return [
    ...verbs.map(
      ({ name, description }) => `${start} -a ${fishQuoted(name)} -d ${fishQuoted(description)}`,
    ),
    ...options.map((option) => `${start} ${optionPart(option)}`),
    ...(argument === null || argument.is === "anything" ? [] : [`${start} ${kindPart(argument)}`]),
  ];
}

function optionPart({ names, description, value }: ScriptOption): string {
  const named = names.map((name) =>
    name.startsWith("--") ? `-l ${fishQuoted(name.slice(2))}` : `-s ${fishQuoted(name.slice(1))}`,
  );
  const taken = value === null ? [] : ["-r", kindPart(value)];
  return [...named, ...taken, `-d ${fishQuoted(description)}`].join(" ");
}

function kindPart(kind: Kind): string {
  if (kind.is === "file") return "-F";
  if (kind.is === "directory") return "-f -a '(__fish_complete_directories)'";
  return kind.is === "words" ? `-f -a ${fishQuoted(kind.words.join(" "))}` : "-f";
}
