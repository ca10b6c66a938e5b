"""The `deploy` command: what belongs to the real WidowX 250S."""

from __future__ import annotations

from jsonargparse import auto_cli

from deploy.doctor import doctor


def main(args: list[str] | None = None) -> int:
    """Runs the subcommand; returns the exit code."""
    return auto_cli({"doctor": doctor}, args=args, prog="deploy", description="Run a policy on the real WidowX 250S.")


if __name__ == "__main__":
    raise SystemExit(main())
