"""The `scenegen` command. Options, types and help come from the signatures and docstrings of the functions it calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from scenegen.errors import UserError
from scenegen.llm.base import LLMError


@dataclass(frozen=True)
class Command:
    """A function of `scenegen.commands`, imported only when it is asked for. `places`: its required arguments go by place, not by
    name."""

    module: str
    function: str
    help: str
    places: bool = True

    def load(self) -> Callable[..., int]:
        return getattr(import_module(f"scenegen.commands.{self.module}"), self.function)


COMMANDS = {
    "build": Command("build", "build", "make a set of scenes", places=False),
    "design": Command("build", "design", "print the scene graph of a sentence"),
    "check": Command("check", "check", "make all checks of a scene or a set anew"),
    "replay": Command("check", "replay", "build a scene once more and compare every file"),
    "gallery": Command("sets", "gallery", "write an HTML page that shows a set"),
    "import": Command("sets", "import_tasks", "make EmbodiedGen tasks scenes of a set"),
    "export": Command("sets", "export_tasks", "write scenes as EmbodiedGen tasks"),
    "doctor": Command("doctor", "doctor", "say what is there and what is missing"),
}
LIBRARY = {
    "add": Command("library", "add", "put the objects of a set into a library"),
    "search": Command("library", "search", "list objects that fit"),
    "stats": Command("library", "stats", "count what a library holds"),
    "verify": Command("library", "verify", "compare every object with its id"),
    "prune": Command("library", "prune", "remove what no scene has taken"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run `scenegen`; returns the exit code: 0 done, 1 not all is as it should be, 2 something the user gave is wrong, 130
    interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _run(words)
    except (UserError, LLMError, ArgumentError) as error:
        print(f"scenegen: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("scenegen: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def _run(words: list[str]) -> int:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    asked = [word for word in words if not word.startswith("-")][:2]
    parser = ArgumentParser(
        prog="scenegen", description="Task sentences to scenes that are proven and ready for simulation.", exit_on_error=False
    )
    commands = parser.add_subcommands(required=True, dest="command")
    for name, command in COMMANDS.items():
        commands.add_subcommand(name, _parser_of(command, asked[:1] == [name]), help=command.help)
    library = ArgumentParser(description="Made objects, kept for other scenes.", exit_on_error=False)
    commands.add_subcommand("library", library, help=library.description)
    actions = library.add_subcommands(required=True, dest="action")
    for name, command in LIBRARY.items():
        actions.add_subcommand(name, _parser_of(command, asked == ["library", name]), help=command.help)

    name = asked[-1] if asked else ""
    chosen = LIBRARY.get(name) if asked[:1] == ["library"] else COMMANDS.get(asked[0]) if asked else None
    settings = parser.instantiate(parser.parse_args(_plain(words, chosen)))
    arguments = settings[settings.command]
    if settings.command == "library":
        arguments = arguments[arguments.action]
    assert chosen is not None, "the parser refuses what is no command"
    return chosen.load()(**{name: value for name, value in vars(arguments).items() if name != "config"})


def _parser_of(command: Command, wanted: bool) -> ArgumentParser:
    """The parser of a subcommand; without its options when another one was asked for."""
    parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
    if wanted:
        function = command.load()
        parser.description = (function.__doc__ or "").strip().splitlines()[0]
        parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
        parser.add_function_arguments(function, as_positional=command.places, sub_configs=True)
    return parser


def _plain(words: list[str], command: Command | None) -> list[str]:
    """--max-usd is read as --max_usd, and a yes-or-no option without a value as a yes."""
    flags = {name for name, kind in get_type_hints(command.load()).items() if kind is bool} if command else set()
    plain = []
    for i, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name[:2] + name[2:].replace("-", "_") + equals + value
            bare = not equals and (i + 1 == len(words) or words[i + 1].startswith("--"))
            word += "=true" if bare and word[2:] in flags else ""
        plain.append(word)
    return plain


if __name__ == "__main__":
    sys.exit(main())
