"""The one-line error and warning for mistakes that the user can fix."""

from __future__ import annotations


class MistError(Exception):
    r"""A mistake in the user's input: a file, a folder, a field or a value.

    The message is one line: the problem, the value found, and the fix. The command line prints it without a traceback
    and exits with code 2.

    The message can be written as UTF-8: lone surrogates, as ``"\ud800"`` of a broken JSON file, are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))


class MistWarning(UserWarning):
    """A problem that does not stop the program; one line, like ``MistError``.

    The command line prints it without the source location.
    """
