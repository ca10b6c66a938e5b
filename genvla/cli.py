"""The `genvla` command. Options, types and help come from the signatures and docstrings of the functions it calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from genvla.errors import UserError


@dataclass(frozen=True)
class Command:
    """A function that a subcommand calls. It is imported only when it is asked for: torch and the simulator take seconds."""

    module: str
    function: str
    help: str
    experiment: bool = False
    """Whether it trains: has a seed for all its parts, and a folder that it can be resumed from."""
    flags: tuple[str, ...] = ()
    """Parameters that are given as `--name`, without a value."""

    def load(self) -> Callable[..., Any]:
        return getattr(import_module(self.module), self.function)


COMMANDS = {
    "pretrain": Command("genvla.learning.pretrain", "pretrain", "train a small policy by imitation of the expert", True),
    "fit": Command("genvla.learning.fit", "fit", "fine-tune a policy by reinforcement learning (PPOFlow)", True),
    "evaluate": Command("genvla.evaluation.command", "evaluate_command", "evaluate a policy on the scenes of a scene set"),
    "export": Command("genvla.policy.export", "export", "write a policy in the format of open-pi-zero or lerobot, or in ours"),
    "serve": Command("genvla.serving.command", "serve_command", "serve a policy over a websocket, to robots and openpi-client"),
    "expert": Command("genvla.evaluation.expert", "expert_command", "try the scripted expert: can the tasks of a set be done?"),
    "doctor": Command("genvla.doctor", "doctor", "check what this machine can run, and say how to mend the rest", flags=("fix",)),
}
BENCHMARKS = {"rollout": Command("genvla.sim.bench", "bench_rollout", "simulated steps per second against a bare SAPIEN loop")}


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code: 0, 2 when what the user gave is wrong, 130 when interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _run(words)
    except (UserError, ArgumentError) as error:
        return _fail(error)
    except SystemExit as stop:  # --help, --print_config
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("genvla: interrupted; a training run goes on from its last checkpoint with --resume RUN_DIR", file=sys.stderr)
        return 130
    except ValueError as error:
        if type(error).__name__ == "UserError":  # scenegen's, which is not imported for a --help
            return _fail(error)
        raise


def _run(words: list[str]) -> int:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    words = _with_config_of_run(words)
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
        benchmarks.add_subcommand(name, _parser_of(command, asked == "bench"), help=command.help)

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
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_function_arguments(function, as_positional=False, skip={"settings", *command.flags}, sub_configs=True)
    for flag in command.flags:
        parser.add_argument(f"--{flag}", action="store_true", help="also mend what can be mended from here")
    if command.experiment:
        parser.link_arguments("seed", "data.init_args.seed")
    return parser


def _arguments(instances: Namespace) -> dict[str, Any]:
    """What the function is called with."""
    return {name: value for name, value in vars(instances).items() if name != "config"}


def _write_down(parser: ArgumentParser, settings: Namespace) -> str:
    """All settings of a run as YAML, with which it can be run again. Names the run after its configuration file if it has no
    name."""
    if settings.run_dir is None and settings.config:
        settings.run_dir = Path("runs") / f"{Path(str(settings.config[0])).stem}-seed{settings.seed}"
    again = settings.clone()
    again.resume = None
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


def _fail(error: Exception) -> int:
    print(f"genvla: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
