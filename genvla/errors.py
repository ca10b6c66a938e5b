"""The one error that a user is meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave is wrong.

    One line: the file, the field, what was found and what is wanted. The commands exit with 2.
    """
