"""The `deploy` command: what belongs to the real WidowX 250S. Options, types and help come from the functions it calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from deploy.drivers import ArmFault
from genvla.cli import Command, _arguments, _parser_of
from genvla.errors import UserError

COMMANDS = {
    "run": Command("deploy.run", "run", "run a policy on the simulated or the real arm"),
    "trials": Command("deploy.trials", "trials", "evaluate policies by the paper's protocol of trials, with its table"),
    "park": Command("deploy.commands", "park", "bring the arm home from wherever it stands, and switch its motors off"),
    "reboot": Command("deploy.commands", "reboot", "restart motors that an error switched off"),
    "doctor": Command("deploy.doctor", "doctor", "check the software and the devices that a real arm needs"),
}
GROUPS = {
    "calibrate": (
        "measure what differs from arm to arm",
        {
            "gravity": Command("deploy.calibrate", "gravity", "how far the joints sink under the arm's weight"),
            "camera": Command("deploy.overlay", "calibrate_camera", "whether the camera stands where the simulator's does"),
        },
    ),
}
"""Commands of two words."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit code: 0; 1 when the arm could not go on; 2 when what the user gave is wrong; 130
    when interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _run(words)
    except (UserError, ArgumentError) as error:
        return _fail(error, 2)
    except ArmFault as error:
        return _fail(error, 1)
    except SystemExit as stop:  # --help, or a signal
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("deploy: interrupted", file=sys.stderr)
        return 130
    except ValueError as error:
        if type(error).__name__ == "UserError":  # scenegen's
            return _fail(error, 2)
        raise


def _run(words: list[str]) -> int:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    asked = [word for word in words if not word.startswith("-")][:2]
    parser = ArgumentParser(prog="deploy", description="Run a policy on the WidowX 250S.", exit_on_error=False)
    subcommands = parser.add_subcommands(required=True, dest="command")
    for name, command in COMMANDS.items():
        subcommands.add_subcommand(name, _parser_of(command, asked[:1] == [name]), help=command.help)
    for group, (help_, commands) in GROUPS.items():
        of_group = ArgumentParser(description=f"{help_.capitalize()}.", exit_on_error=False)
        subcommands.add_subcommand(group, of_group, help=help_)
        parts = of_group.add_subcommands(required=True, dest="what")
        for name, command in commands.items():
            parts.add_subcommand(name, _parser_of(command, asked == [group, name]), help=command.help)
    settings = parser.parse_args(words)
    chosen = parser.instantiate(settings)[settings.command]
    if settings.command in GROUPS:
        what = settings[settings.command].what
        result = GROUPS[settings.command][1][what].load()(**_arguments(chosen[what]))
    else:
        result = COMMANDS[settings.command].load()(**_arguments(chosen))
    return result if isinstance(result, int) else 0


def _fail(error: Exception, code: int) -> int:
    print(f"deploy: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
