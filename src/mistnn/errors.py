"""The error that says a user's mistake in one line."""

from __future__ import annotations


class MistError(Exception):
    """A mistake in what the user gave: a file, a folder, a field, a value.

    The message is one line: what is wrong, the value found, and how to mend it. The command line prints it without a
    traceback and exits with code 2.
    """
