"""The errors a user sees: one line that says what is wrong, where, and what to do.

The command line prints `str(error)` and exits with `error.exit_status`; no other exception type is expected to reach a
user. `BadInput` (status 2) is for what the user gave; `InlayError` (status 1) for what failed while working.
"""

MOST_CHARACTERS = 1500
"""Of a message: a value of thousands of characters that it repeats would push what it says off the screen."""


class InlayError(Exception):
    """A failure with a one-line message for the user. Exit status 1."""

    exit_status = 1

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 305]} ... {text[-300:]}"


class BadInput(InlayError):
    """The user's input (configuration, path, corpus, cursor ...) cannot be used. Exit status 2."""

    exit_status = 2


class ConfigError(BadInput):
    """A configuration key or value is wrong; the message names the full path and what is allowed."""
