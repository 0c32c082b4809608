"""The `key=value` tail of a command line: which of its keys belong to the verb itself, the rest being configuration.

`out=DIR` and `resume=RUN` name where a verb writes and what it goes on with; they are no part of a run's configuration,
so that the same configuration can start a second run elsewhere.
"""

import os
from collections.abc import Sequence

from inlay.config.errors import BadInput


def take(overrides: Sequence[str], key: str) -> tuple[str | None, list[str]]:
    """The value of `key=value` among `overrides` (None when it is not there), and the others in their order.

    A leading `~/` is the home directory. Raises BadInput for a key that is given twice or without a value.
    """
    values = [text.partition("=")[2] for text in overrides if text.startswith(f"{key}=")]
    if len(values) > 1:
        raise BadInput(f"'{key}' is given {len(values)} times: {', '.join(f'{key}={value}' for value in values)}")
    if values == [""]:
        raise BadInput(f"'{key}=' has no value: give {key}=PATH")
    rest = [text for text in overrides if not text.startswith(f"{key}=")]
    return (os.path.expanduser(values[0]) if values else None), rest
