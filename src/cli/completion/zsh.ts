/**
 * The script for zsh, as a file `_gatehouse` in $fpath or sourced.
 *
 * Invariant: see completion.ts. Nothing on the line is evaluated.
 */
import type { Kind, ScriptOption, ScriptVerb } from "../completion.ts";
import { quoted } from "./quoting.ts";

/** The whole script. */
export function zshScript(verbs: readonly ScriptVerb[]): string {
  return `#compdef gatehouse
# zsh completion for gatehouse. To use it now: source <(gatehouse completion zsh)
# For every shell: gatehouse completion zsh > a file called _gatehouse in a directory of $fpath

# What can follow a verb: sets verbs, flags, values and argument.
_gatehouse_facts() {
  verbs=() flags=() values=() argument=anything
  case $1 in
${verbs.map(facts).join("\n")}
    (*) return 1 ;;
  esac
}

_gatehouse() {
  local path_so_far= next_path= kind= i
  local -a verbs flags
  local -A values
  local argument prev=\${words[CURRENT-1]} cur=\${words[CURRENT]}
  for ((i = 2; i < CURRENT; i++)); do
    next_path=\${path_so_far:+$path_so_far }\${words[i]}
    _gatehouse_facts "$next_path" || break
    path_so_far=$next_path
  done
  _gatehouse_facts "$path_so_far"
  # A word that is no verb of this group: nothing that follows is known.
  (( i < CURRENT && \${#verbs} )) && return
  if [[ $cur == --*=* && -n \${values[\${cur%%=*}]} ]]; then
    kind=\${values[\${cur%%=*}]}
    compset -P '*='
  elif [[ $prev == -* && -n \${values[$prev]} ]]; then
    kind=\${values[$prev]}
  elif [[ $cur == -* ]]; then
    _describe -o option flags
    return
  elif (( \${#verbs} )); then
    _describe verb verbs
    return
  else
    kind=$argument
  fi
  case $kind in
    (file) _files ;;
    (directory) _files -/ ;;
    (anything) _message 'a value' ;;
    (*) compadd -- \${(s:|:)kind} ;;
  esac
}

if [[ \${funcstack[1]} == _gatehouse ]]; then
  _gatehouse "$@"
else
  compdef _gatehouse gatehouse
fi
`;
}

function facts({ path, verbs, options, argument }: ScriptVerb): string {
  const described = options.flatMap(({ names, description }) =>
    names.map((name) => ({ name, description })),
  );
  const lines = [
    `verbs=(${list(verbs)})`,
    `flags=(${list(described)})`,
    `values=(${options.flatMap(values).join(" ")})`,
    `argument=${quoted(kindText(argument))}`,
  ];
  return `    (${quoted(path)})\n      ${lines.join("\n      ")}\n      ;;`;
}

/** `name:description`, where a colon of the name would have to be escaped. */
function list(items: readonly { readonly name: string; readonly description: string }[]): string {
  return items
    .map(({ name, description }) => quoted(`${name.replaceAll(":", "\\:")}:${description}`))
    .join(" ");
}

function values({ names, value }: ScriptOption): string[] {
  return value === null ? [] : names.map((name) => `${quoted(name)} ${quoted(kindText(value))}`);
}

function kindText(kind: Kind | null): string {
  if (kind === null) return "anything";
  return kind.is === "words" ? kind.words.join("|") : kind.is;
}
