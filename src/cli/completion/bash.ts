/**
 * The script for bash, 3.2 and later, without the bash-completion package.
 *
 * Invariant: see completion.ts. Nothing on the line is evaluated.
 */
import type { Kind, ScriptOption, ScriptVerb } from "../completion.ts";
import { quoted } from "./quoting.ts";

/** The whole script. */
export function bashScript(verbs: readonly ScriptVerb[]): string {
  return `# bash completion for gatehouse. To use it now: source <(gatehouse completion bash)
# For every shell: gatehouse completion bash > ~/.local/share/bash-completion/completions/gatehouse

# What can follow a verb: sets verbs, flags, values and argument.
_gatehouse_facts() {
  verbs= flags= values= argument=
  case $1 in
${verbs.map(facts).join("\n")}
    *) return 1 ;;
  esac
}

_gatehouse() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev= path= next= kind= i
  local verbs flags values argument
  ((COMP_CWORD > 0)) && prev=\${COMP_WORDS[COMP_CWORD-1]}
  # --option=value arrives as three words.
  if [[ $cur == "=" ]]; then
    cur=
  elif [[ $prev == "=" ]]; then
    prev=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    next=\${path:+$path }\${COMP_WORDS[i]}
    _gatehouse_facts "$next" || break
    path=$next
  done
  _gatehouse_facts "$path"
  # A word that is no verb of this group: nothing that follows is known.
  ((i < COMP_CWORD)) && [[ -n $verbs ]] && return
  if [[ $prev == -* && $values == *" $prev:"* ]]; then
    kind=\${values#*" $prev:"}
    kind=\${kind%% *}
  elif [[ $cur == -* ]]; then
    kind=\${flags// /|}
  elif [[ -n $verbs ]]; then
    kind=\${verbs// /|}
  else
    kind=$argument
  fi
  case $kind in
    file) _gatehouse_names -f "$cur" ;;
    directory) _gatehouse_names -d "$cur" ;;
    '' | anything) ;;
    *)
      local IFS='|' word
      for word in $kind; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
      done
      ;;
  esac
}

# Names of files, also those with blanks in them.
_gatehouse_names() {
  local name
  compopt -o filenames 2> /dev/null
  while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen "$1" -- "$2")
}

complete -F _gatehouse gatehouse
`;
}

function facts({ path, verbs, options, argument }: ScriptVerb): string {
  const names = verbs.map(({ name }) => name).join(" ");
  const flags = options.flatMap((option) => option.names).join(" ");
  const parts = [
    `verbs=${quoted(names)}`,
    `flags=${quoted(flags)}`,
    `values=${quoted(` ${options.flatMap(values).join(" ")} `)}`,
    `argument=${quoted(kindText(argument))}`,
  ];
  return `    ${quoted(path)}) ${parts.join(" ")} ;;`;
}

function values({ names, value }: ScriptOption): string[] {
  return value === null ? [] : names.map((name) => `${name}:${kindText(value)}`);
}

function kindText(kind: Kind | null): string {
  if (kind === null) return "anything";
  return kind.is === "words" ? kind.words.join("|") : kind.is;
}
