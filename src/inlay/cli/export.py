"""`inlay export`: a run to Hugging Face or GGUF, with the proof that the copy computes the same."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


def export(
    target: str,
    /,
    *,
    to: Literal["hf", "gguf"],
    out: Path,
    number_format: Annotated[str | None, Parameter(name="--type")] = None,
    check: Flag = False,
) -> int:
    """Write a model for transformers and vLLM (--to hf --out FOLDER) or llama.cpp and Ollama (--to gguf --out FILE).

    Examples: inlay export RUN --to hf --out DIR, and inlay export RUN --to gguf --out model.gguf --type q8_0 --check

    Parameters
    ----------
    target
        A run directory, a checkpoint, or a folder in Hugging Face's format.
    to
        hf: weights, tokenizer, generation config and model card. gguf: one file, and an Ollama Modelfile beside it.
    out
        The folder or file to write; nothing that exists is written over.
    number_format
        Number format: f32, f16 (default), bf16, q8_0 or q4_0 for gguf; f32 (default) or bf16 for hf.
    check
        Compare greedy tokens and log-probabilities with transformers and llama.cpp on 20 infilling prompts; exit status
        1 where they differ beyond ties.
    """
    from inlay.export.run import export as run_export
    from inlay.text.progress import RichProgress

    made = run_export(target, to, out.expanduser(), number_format, prove=check, progress=RichProgress())
    for notice in made.notices:
        print(f"inlay: {notice}", file=sys.stderr)
    for path in made.written:
        print(path)
    if made.checked is None:
        return 0
    from inlay.export.check import print_checked

    print_checked(made.checked)
    if made.checked.passed:
        return 0
    if any(row.judged for row in made.checked.rows):
        print("inlay: the copy does not compute the same; see the table", file=sys.stderr)
    else:
        print("inlay: nothing is proven, because there was no peer to compare with; see above", file=sys.stderr)
    return 1
