"""The one error that a user is meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """What the user gave is wrong. One line: the file, the field, what was found, what is wanted. The commands exit with 2."""
