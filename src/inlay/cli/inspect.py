"""`inlay inspect`: what a model is made of, what rows a store gives, what a store holds, what a run will do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from inlay.data.inspect import Shown
    from inlay.model import ModelConfig

Tail = Annotated[str, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


def model(preset: str, /, *overrides: Tail, context: int = 512, vocabulary: int = 8192, as_json: Json = False) -> None:
    """A model's layers, parameters, FLOPs and K/V bytes per token, and where it can be exported.

    Parameters
    ----------
    preset
        One of the files of the group model: nano, base-1b, mixattention-1b ...
    overrides
        Options of the model as key=value: model.layers=8 ...
    context
        Positions at which FLOPs and K/V bytes are counted.
    vocabulary
        Tokens of the tokenizer.
    as_json
        One JSON object.
    """
    from inlay.config import BadInput
    from inlay.model.table import print_table

    for name, value in (("context", context), ("vocabulary", vocabulary)):
        if value < 1:
            raise BadInput(f"--{name} {value}: give at least 1")
    print_table(preset, list(overrides), vocabulary, context, export_lines, as_json)


def export_lines(config: "ModelConfig", context: int) -> list[str]:
    """One line each about Hugging Face and GGUF: the architecture that a model is exported as, or why there is none."""
    from inlay.export import llama_cpp
    from inlay.model import architecture

    found = []
    for target, refused, chosen in (
        ("hf", architecture.refusal(config), architecture.choose),
        ("gguf", llama_cpp.refusal(config, context), lambda config: llama_cpp.architecture_of(config, context)),
    ):
        found.append(f"--to {target}: {refused if refused is not None else chosen(config).kind}")
    return found


def rows(
    place: str,
    /,
    *overrides: Tail,
    count: int = 4,
    stage: str | None = None,
    source: str | None = None,
    as_json: Json = False,
) -> None:
    """Training rows as the model sees them: those that a store gives, or those that a run was trained on.

    Examples: inlay inspect rows STORE fim.rate=1, and with the run's own options: inlay inspect rows RUN

    Parameters
    ----------
    place
        A token store, a run directory, or a checkpoint of one.
    overrides
        Of a store, training options as key=value: fim.rate=1, train.sequence_length=256 ... Of a run only where its
        store is now: data.path=STORE.
    count
        How many rows.
    stage
        Of a run with stages, the first rows of this one; by default the stage of the checkpoint's last step.
    source
        Of a run on a mixture, only rows of this source.
    as_json
        One JSON object a line.
    """
    from inlay.config import BadInput
    from inlay.data.inspect import print_rows

    if count < 1:
        raise BadInput(f"--count {count}: show at least one row")
    print_rows(_opened(place, overrides, stage, source), count, as_json, list(overrides))


def stats(
    place: str, /, *overrides: Tail, stage: str | None = None, source: str | None = None, as_json: Json = False
) -> None:
    """What a store holds, and the rates, shares and middle lengths of its training rows, or of those of a run.

    Examples: inlay inspect stats STORE fim.level=document, and with the run's own options: inlay inspect stats RUN

    Parameters
    ----------
    place
        A token store, a run directory, or a checkpoint of one.
    overrides
        Of a store, training options as key=value: fim.level=document, train.sequence_length=256 ... Of a run only
        where its store is now: data.path=STORE.
    stage
        Of a run with stages, this one; by default the stage of the checkpoint's last step.
    source
        Of a run on a mixture, this source; by default the main one.
    as_json
        One JSON object.
    """
    from inlay.data.stats import print_stats

    print_stats(_opened(place, overrides, stage, source, one_source=True), as_json, list(overrides))


def _opened(
    place: str, overrides: tuple[str, ...], stage: str | None, source: str | None, one_source: bool = False
) -> "str | Shown":
    """The rows of a run or a checkpoint; a store as it is, which is opened with its options."""
    from inlay.config import BadInput

    if any((Path(place) / name).is_file() for name in ("config.yaml", "checkpoint.json")):
        from inlay.train.run_rows import of_run

        return of_run(place, overrides, stage, source, one_source)
    for name, value in (("stage", stage), ("source", source)):
        if value is not None:
            raise BadInput(f"--{name} {value}: only a run has {name}s, and '{place}' is none")
    return place


def plan(*overrides: Tail, config: Path | None = None, as_json: Json = False) -> None:
    """What a training run will do, one row a stage: steps, tokens, rows, learning rates, epochs of its data.

    Example: inlay inspect plan train.tokens=50000000 data.path=STORE

    Parameters
    ----------
    overrides
        Training options as for `inlay train`; without data.path nothing is said about the data.
    config
        Start from this file, such as RUN/config.yaml, in place of the defaults.
    as_json
        One JSON object.
    """
    from inlay.config import validate
    from inlay.config.compose import apply_overrides, compose
    from inlay.config.yaml_file import load_yaml

    options = list(overrides)
    has_data = config is not None or any(text.lstrip("+").startswith(("data=", "data.")) for text in options)
    if not has_data:
        options.append("data.path=none")
    data = compose("train", options) if config is None else apply_overrides(load_yaml(config), options)
    from inlay.train.config import TrainRun
    from inlay.train.plan_table import print_plan

    print_plan(validate(TrainRun, data, where=str(config or "command line")), has_data, as_json)


def optim(preset: str, /, *overrides: Tail, vocabulary: int = 8192, as_json: Json = False) -> None:
    """What every parameter of a model gets from the optimizer: which one, in what blocks, at which rate and decay.

    Parameters
    ----------
    preset
        One of the files of the group model: nano, base-1b, mla-1b ...
    overrides
        Training options as key=value: optim=adamw, optim.per_head=true, model.tie_embeddings=false ...
    vocabulary
        Tokens of the tokenizer.
    as_json
        One JSON object a line.
    """
    from inlay.config import BadInput
    from inlay.train.routing import print_routing

    if vocabulary < 1:
        raise BadInput(f"--vocabulary {vocabulary}: give at least 1")
    print_routing(preset, list(overrides), vocabulary, as_json)


def spans(
    file: str,
    /,
    *overrides: Tail,
    kind: str | None = None,
    count: int = 5,
    store: str | None = None,
    as_json: Json = False,
) -> None:
    """What could be cut in one file: its syntax nodes, and a few middles of each span strategy.

    Parameters
    ----------
    file
        A source file; its name tells the language.
    overrides
        FIM options as key=value: fim=lines, fim.indentation=0 ...
    kind
        Only this strategy, by its name in the options or by its kind.
    count
        How many spans of each strategy.
    store
        Measure in the tokens of this token store; without one each byte is a token.
    as_json
        One JSON object a line.
    """
    from inlay.fim.inspect import print_spans

    print_spans(file, list(overrides), kind, count, store, as_json)


def formats(*, as_json: Json = False) -> None:
    """The format families: sentinels, orders, stop tokens, repository form, and the prompt of each for one example.

    Parameters
    ----------
    as_json
        One JSON object a line.
    """
    from inlay.fim.show_formats import print_formats

    print_formats(as_json)
