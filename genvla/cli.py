"""The `genvla` command. Options, types and help come from the signatures and docstrings of the functions it calls."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from genvla.errors import Preempted, UserError


@dataclass(frozen=True)
class Command:
    """A function that a subcommand calls. It is imported only when it is asked for: torch and the simulator take seconds."""

    module: str
    function: str
    help: str
    experiment: bool = False
    """Whether it trains: has a seed for all its parts, and a folder that it can be resumed from."""
    flags: tuple[tuple[str, str], ...] = ()
    """Parameters that may be given as `--name`, without a value, and their help."""
    operands: tuple[tuple[str, str], ...] = ()
    """Parameters that are given without their name, as often as wanted, and their help."""

    def load(self) -> Callable[..., Any]:
        return getattr(import_module(self.module), self.function)


DRY_RUN = (("dry_run", "check the files and print what the run would do and take, on any machine; nothing is trained"),)
COMMANDS = {
    "pretrain": Command("genvla.learning.pretrain", "pretrain", "train a small policy by imitation of the expert", True),
    "fit": Command("genvla.learning.fit", "fit", "fine-tune a policy by reinforcement learning (PPOFlow)", True, DRY_RUN),
    "evaluate": Command("genvla.evaluation.command", "evaluate_command", "evaluate a policy on the scenes of a scene set"),
    "compare": Command(
        "genvla.evaluation.compare",
        "compare_command",
        "set runs side by side: tables, figures, a page",
        operands=(("runs", "folders of training runs, or results of genvla evaluate; none to take runs from MLflow"),),
    ),
    "sweep": Command("genvla.learning.sweep", "sweep", "run a grid of configurations and seeds, and compare them"),
    "export": Command("genvla.policy.export", "export", "write a policy in the format of open-pi-zero or lerobot, or in ours"),
    "export-dataset": Command(
        "genvla.learning.lerobot.command", "export_dataset", "write episodes as a dataset that lerobot and `genvla pretrain` read"
    ),
    "serve": Command("genvla.serving.command", "serve_command", "serve a policy over a websocket, to robots and openpi-client"),
    "expert": Command("genvla.evaluation.expert", "expert_command", "try the scripted expert: can the tasks of a set be done?"),
    "doctor": Command(
        "genvla.doctor",
        "doctor",
        "check what this machine can run, and say how to mend the rest",
        flags=(("fix", "also mend what can be mended from here"),),
    ),
}
BASE = "base"
"""Key of a configuration file: the file whose settings it adds to, relative to it."""
BENCHMARKS = {
    "rollout": Command("genvla.sim.bench", "bench_rollout", "simulated steps per second against a bare SAPIEN loop"),
    "collection": Command("genvla.learning.bench_collection", "bench_collection", "what policy, processes and scenes cost"),
    "policy": Command(
        "genvla.policy.bench",
        "bench_policy",
        "time of a decision, by number of integration steps",
        flags=(("reference", "compare with transformers' own pi0 of the same sizes, in openpi's conventions"),),
    ),
    "update": Command(
        "genvla.learning.bench_update",
        "bench_update",
        "speed and memory of a fine-tuning update, or an estimate of its memory",
        flags=(
            ("checkpointing", "keep only the inputs of layers for the way back"),
            ("estimate", "run nothing: memory by part, and the largest micro-batch that fits"),
        ),
    ),
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code: 0, 2 when what the user gave is wrong, 75 when told to stop by SIGTERM or
    SIGUSR1 and saved, 130 when interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _run(words)
    except (UserError, ArgumentError) as error:
        return _fail(error)
    except Preempted as stop:
        print(f"genvla: {stop}; it goes on from there with --resume RUN_DIR", file=sys.stderr)
        return stop.exit_code
    except SystemExit as stop:  # --help, --print_config
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        goes_on = "a training run goes on from its last checkpoint with --resume RUN_DIR, an evaluation or a sweep by itself"
        print(f"genvla: interrupted; {goes_on}", file=sys.stderr)
        return 130
    except ValueError as error:
        if type(error).__name__ == "UserError":  # scenegen's, which is not imported for a --help
            return _fail(error)
        raise


def _run(words: list[str]) -> int:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    words = _with_bases(_with_config_of_run(words))
    asked = next((word for word in words if not word.startswith("-")), None)
    parser = ArgumentParser(
        prog="genvla",
        description="Robot policies fine-tuned by reinforcement learning in generated scenes.",
        exit_on_error=False,
    )
    subcommands = parser.add_subcommands(required=True, dest="command")
    parsers = {name: _parser_of(command, asked == name) for name, command in COMMANDS.items()}
    for name, command in COMMANDS.items():
        subcommands.add_subcommand(name, parsers[name], help=command.help)
    bench = ArgumentParser(description="Measure how fast parts of genvla are on this machine.", exit_on_error=False)
    subcommands.add_subcommand("bench", bench, help=bench.description)
    benchmarks = bench.add_subcommands(required=True, dest="benchmark")
    for name, command in BENCHMARKS.items():
        benchmarks.add_subcommand(name, _parser_of(command, asked == "bench" and name in words), help=command.help)

    settings = parser.parse_args(words)
    if settings.command == "bench":
        command = BENCHMARKS[settings.bench.benchmark]
        result = command.load()(**_arguments(parser.instantiate(settings).bench[settings.bench.benchmark]))
    else:
        command = COMMANDS[settings.command]
        written_down = {}
        if command.experiment:
            written_down["settings"] = _write_down(parsers[settings.command], settings[settings.command])
        result = command.load()(**_arguments(parser.instantiate(settings)[settings.command]), **written_down)
    return result if isinstance(result, int) else 0


def _parser_of(command: Command, wanted: bool) -> ArgumentParser:
    """The parser of a subcommand; without its options when another one was asked for."""
    parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
    if not wanted:
        return parser
    function = command.load()
    parser.description = (function.__doc__ or "").strip().splitlines()[0]
    based = f"; its `{BASE}` names another one that it adds to" if command.experiment else ""
    parser.add_argument("--config", action="config", help=f"YAML file with any of the options below{based}.")
    for operand, text in command.operands:
        parser.add_argument(operand, nargs="*", type=Path, help=text)
    named: set[str | int] = {"settings", *dict(command.flags), *dict(command.operands)}
    parser.add_function_arguments(function, as_positional=False, skip=named, sub_configs=True)
    for flag, text in command.flags:
        parser.add_argument(f"--{flag.replace('_', '-')}", nargs="?", const=True, default=False, type=bool, help=text)
    if command.experiment:
        parser.add_argument(f"--{BASE}", type=_taken_care_of, help=SUPPRESS)
        parser.link_arguments("seed", "data.init_args.seed")
    return parser


def _arguments(instances: Namespace) -> dict[str, Any]:
    """What the function is called with."""
    return {name: value for name, value in vars(instances).items() if name not in ("config", BASE)}


def _write_down(parser: ArgumentParser, settings: Namespace) -> str:
    """All settings of a run as YAML, with which it can be run again. Names the run after its configuration file if it has no
    name."""
    files = [Path(str(path)) for path in settings.config or ()]
    if settings.run_dir is None and files:
        bases = {base for path in files for base in _bases_of(path)}
        name = next(path.stem for path in files if Path(os.path.abspath(path)) not in bases)
        settings.run_dir = Path("runs") / f"{name}-seed{settings.seed}"
    again = settings.clone()
    again.resume = None
    again.pop("dry_run", None)
    return parser.dump(again, skip_link_targets=True)


def _with_config_of_run(words: list[str]) -> list[str]:
    """Puts the configuration of the run to resume before the other options, so that they override it."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != "--resume":
            continue
        value = value if equals else next(iter(words[place + 1 :]), "")
        config = Path(value) / "config.yaml"
        if not config.is_file():
            raise UserError(f"--resume: {config} not found, want the folder of a run")
        return [words[0], "--config", str(config), *words[1:]]
    return words


def _with_bases(words: list[str]) -> list[str]:
    """Puts the base of each configuration file before it, so that the file overrides it."""
    result: list[str] = []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == f"--{BASE}":
            raise UserError(f"--{BASE}: found on the command line, want it in a configuration file; here, give --config twice")
        if name == "--config" and (equals or words[place + 1 :]):
            for base in _bases_of(Path(value if equals else words[place + 1])):
                result += ["--config", os.path.relpath(base)]
        result.append(word)
    return result


def _taken_care_of(value: Any) -> None:
    """What becomes of a base's name once its file is read: settings that are printed or kept hold all that it said."""


def _bases_of(path: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    """The file that a configuration file names as its base, before it that one's base and so on; absolute.

    above: the bases that led here.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return []  # the parser says what is wrong with it
    if not isinstance(settings, dict) or settings.get(BASE) is None:
        return []
    base = Path(os.path.abspath(path.parent / str(settings[BASE])))
    if not base.is_file():
        raise UserError(f"{path}: {BASE}: {settings[BASE]!r} found, want a YAML file, relative to this one")
    if base in above:
        raise UserError(f"{path}: {BASE}: {settings[BASE]!r} found, which is based on this one, want no circle")
    return [*_bases_of(base, above | {base}), base]


def _fail(error: Exception) -> int:
    print(f"genvla: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
