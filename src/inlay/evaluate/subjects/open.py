"""Opens whatever may be evaluated: a run, a checkpoint, an export, any model folder, a server, a file of completions.

It decides by what is given: an address is a server; a Hugging Face folder of an architecture that inlay has not is
transformers' to open; everything else is `inlay.infer.open`'s. It refuses both a model and completions, and neither.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inlay.config import BadInput
from inlay.config.files import parse_json, read_bounded_text
from inlay.evaluate.subject import Subject

if TYPE_CHECKING:
    from inlay.infer.open import DtypeName


def open_subject(
    target: str | Path | None,
    *,
    completions: str | Path | None = None,
    family: str | None = None,
    api: Literal["auto", "completions", "infill"] = "auto",
    model: str | None = None,
    sequence_length: int | None = None,
    device: str | None = None,
    dtype: "DtypeName" = "auto",
    rows: int = 64,
) -> Subject:
    """The subject that `target` or `completions` names.

    `target`: a run, a checkpoint, a folder in Hugging Face's form, or a server's address (http:// or https://).
    `family`: the FIM format of a folder or server that does not tell; `api` and `model`: how a server is asked, and for
    which of its models; `sequence_length`, `device`, `dtype`, `rows`: as `inlay.infer.open.open_model`. Raises BadInput
    in one line for what cannot be opened and for options that do not go with it, InlayError for what is damaged or does
    not answer.
    """
    if (target is None) == (completions is None):
        what = "neither is given" if target is None else "both are given"
        raise BadInput(f"evaluate a model (RUN, FOLDER or http://...) or --completions FILE: {what}")
    server = isinstance(target, str) and target.lower().startswith(("http://", "https://"))
    if not server:
        _refuse_options("is for a server's address", api=None if api == "auto" else api, model=model)
    if completions is not None:
        from inlay.evaluate.subjects.completions import CompletionsSubject

        _refuse_options("is for a model, not for completions", family=family, sequence_length=sequence_length)
        return CompletionsSubject(completions)
    assert target is not None
    if server:
        from inlay.evaluate.subjects.server import ServerSubject

        _refuse_options("is the server's own choice", sequence_length=sequence_length)
        return ServerSubject(str(target), api=api, family=family, model=model)
    return _folder(Path(target), family, sequence_length, device, dtype, rows)


def _folder(
    path: Path, family: str | None, sequence_length: int | None, device: str | None, dtype: "DtypeName", rows: int
) -> Subject:
    from inlay.infer.hf_folder import CONFIG, is_hf_folder

    if is_hf_folder(path) and not _is_ours(path / CONFIG):
        from inlay.evaluate.subjects.transformers_folder import TransformersSubject

        return TransformersSubject(path, family, sequence_length=sequence_length, device=device, dtype=dtype, rows=rows)
    from inlay.evaluate.subjects.local import LocalSubject
    from inlay.infer.open import open_model

    opened = open_model(path, device, dtype, rows=rows, family=family, sequence_length=sequence_length)
    return LocalSubject(opened, rows)


def _is_ours(file: Path) -> bool:
    """Whether a config.json is of an architecture that inlay has, with options that it computes. A damaged file is
    ours to explain."""
    from inlay.model.architecture import architecture_of

    try:
        data = parse_json(read_bounded_text(file))
    except (OSError, ValueError, RecursionError):
        return True
    if not isinstance(data, dict) or "model_type" not in data or "quantization_config" in data:
        return True
    try:
        architecture_of(data, str(file)).read(data, str(file))
    except BadInput:
        return False
    return True


def _refuse_options(why: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise BadInput(f"{name} = {value} {why}: leave it out")
