"""The errors that a user is meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave is wrong.

    One line: the file, the field, what was found and what is wanted. The commands exit with 2.
    """


class Preempted(Exception):
    """The run was told to stop and has saved where it stands; it goes on from there with --resume. The commands exit with 75,
    EX_TEMPFAIL of sysexits.h: nothing is wrong, try again."""

    exit_code = 75
