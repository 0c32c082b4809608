"""`inlay inspect`: what a model is made of, what rows a store gives, what a store holds."""

from typing import Annotated

from cyclopts import Parameter

Tail = Annotated[str, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


def model(preset: str, /, *overrides: Tail) -> None:
    """A model's layers, parameters, FLOPs per token and K/V bytes per token.

    Parameters
    ----------
    preset
        One of the files of the group model: nano, micro, small ...
    overrides
        Options of the model as key=value: model.layers=8 ...
    """
    from inlay.model.table import print_table

    print_table(preset, list(overrides))


def rows(store: str, /, *overrides: Tail, count: int = 4, as_json: Json = False) -> None:
    """Training rows as the model sees them.

    Parameters
    ----------
    store
        A token store.
    overrides
        Training options as key=value: fim.rate=1, train.sequence_length=256 ...
    count
        How many rows.
    as_json
        One JSON object a line.
    """
    from inlay.config import BadInput
    from inlay.data.inspect import print_rows

    if count < 1:
        raise BadInput(f"--count {count}: show at least one row")
    print_rows(store, count, as_json, list(overrides))


def stats(store: str, /, *, as_json: Json = False) -> None:
    """Documents, tokens, languages and licences of a store, and what was left out and why.

    Parameters
    ----------
    store
        A token store.
    as_json
        One JSON object.
    """
    from inlay.data.inspect import print_stats

    print_stats(store, as_json)
