"""``mist completion``: a script that completes commands, options and names in a shell."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import options_of, parse

DESCRIPTION = """\
Prints a script that completes commands, options, presets and models.

  bash  mist completion bash > ~/.local/share/bash-completion/completions/mist
  zsh   add to ~/.zshrc: eval "$(mist completion zsh)"
  fish  mist completion fish > ~/.config/fish/completions/mist.fish"""


@dataclass(frozen=True)
class Completion:
    """The arguments.

    Attributes:
        shell: bash, zsh or fish.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")]


def run(arguments: Sequence[str]) -> int:
    """Prints the script."""
    request = parse(Completion, arguments, "mist completion", DESCRIPTION)
    print(fish() if request.shell == "fish" else bash(zsh=request.shell == "zsh"))
    return 0


def words() -> Mapping[str, list[str]]:
    """Command -> its options and the names that it takes."""
    from mistnn.cli.main import COMMANDS
    from mistnn.presets import PRESETS
    from mistnn.weights import shipped_names

    found = {}
    for name, (usage, _) in COMMANDS.items():
        module = importlib.import_module(f"mistnn.cli.{name}")
        own = [kind for kind in vars(module).values() if dataclasses.is_dataclass(kind) and isinstance(kind, type)]
        own = [kind for kind in own if kind.__module__ == module.__name__]
        options = sorted({option for kind in own for option in options_of(kind)} | {"--help"})
        names = sorted(PRESETS) if "PRESET" in usage else shipped_names() if "MODEL" in usage else []
        found[name] = [*options, *names, *(("bash", "fish", "zsh") if name == "completion" else ())]
    return found


def bash(zsh: bool = False) -> str:
    """The script for bash, which zsh understands after two more commands."""
    known = words()
    cases = "\n".join(f"    {name}) words='{' '.join(own)}' ;;" for name, own in known.items())
    return f"""{"autoload -U +X compinit && compinit; autoload -U +X bashcompinit && bashcompinit" if zsh else ""}
_mist() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=( $(compgen -W '{" ".join(known)} --help --version' -- "$current") )
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
  case "$current" in
    -*) ;;
    *) local IFS=$'\\n'; COMPREPLY+=( $(compgen -f -- "$current") ) ;;
  esac
}}
complete -o filenames -F _mist mist""".lstrip()


def fish() -> str:
    """The script for fish."""
    known = words()
    lines = [f"complete -c mist -n __fish_use_subcommand -f -a '{' '.join(known)}'"]
    for name, own in known.items():
        seen = f"complete -c mist -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{seen} -l {word.removeprefix('--')}" for word in own if word.startswith("--")]
        if names := [word for word in own if not word.startswith("--")]:
            lines.append(f"{seen} -a '{' '.join(names)}'")
    return "\n".join(lines)
