"""The error and the warning that say in one line what a user can mend."""

from __future__ import annotations


class MistError(Exception):
    """A mistake in what the user gave: a file, a folder, a field, a value.

    The message is one line: what is wrong, the value found, and how to mend it. The command line prints it without a
    traceback and exits with code 2.
    """


class MistWarning(UserWarning):
    """Something that goes on, but not as the user will want it; one line, like ``MistError``.

    The command line prints it without the place in the sources where it arose.
    """
