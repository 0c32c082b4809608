"""The Ollama Modelfile beside a GGUF file: the infilling template in the format's own strings, and its stop strings.

Ollama applies the template to every request without `raw`; a template that names `.Suffix` is what makes it accept one.
A request without a suffix gets the same prompt with an empty one, because that is what the model was trained on.
"""

from pathlib import Path

from inlay.config import BadInput
from inlay.fim.family import Family, Order
from inlay.infer.open import Opened


def modelfile(opened: Opened, file: str) -> str:
    """The text of a Modelfile for the GGUF file called `file`, in the same folder.

    Raises BadInput for a string that a Modelfile cannot hold.
    """
    family = opened.fim_format.family
    simple: list[Order] = [order for order in opened.orders if order != "spm_joint"]
    order = simple[0] if simple else opened.orders[0]
    lines = [f"FROM ./{file}", f'TEMPLATE """{template(family, order)}"""']
    lines += [f"PARAMETER num_ctx {opened.sequence_length}", "PARAMETER temperature 0"]
    lines += [f"PARAMETER stop {_quoted(text)}" for text in stop_strings(opened)]
    return "\n".join(lines) + "\n"


def template(family: Family, order: Order) -> str:
    """Ollama's template of a format's prompt in `order`."""
    filled = _prompt(family, order, "{{ .Prompt }}", "{{ .Suffix }}")
    # Ollama knows no suffix at all in some requests, and would print that it has no value.
    return f"{{{{ if .Suffix }}}}{filled}{{{{ else }}}}{_prompt(family, order, '{{ .Prompt }}', '')}{{{{ end }}}}"


def stop_strings(opened: Opened) -> list[str]:
    """The string of every stop id, in the order of their ids."""
    names = {number: name for name, number in opened.tokenizer.special.items()}
    return [names[number] for number in sorted(opened.fim_format.stop_ids)]


def modelfile_path(gguf: Path) -> Path:
    """Where the Modelfile of a GGUF file stands: the file's name with `.Modelfile` behind it."""
    return gguf.with_name(f"{gguf.name}.Modelfile")


def _prompt(family: Family, order: Order, prefix: str, suffix: str) -> str:
    places = {
        "prefix": family.prefix,
        "suffix": family.suffix,
        "middle": family.middle or "",
        "hints": "",
        "p": prefix,
        "s": suffix,
        "m": "",
    }
    text = (family.bos or "") + "".join(places[place] for place in family.layout(order))
    if '"""' in text:
        raise BadInput(f'format family \'{family.kind}\' has """ in a sentinel, which a Modelfile cannot hold')
    return text


def _quoted(text: str) -> str:
    if '"' in text or "\n" in text:
        raise BadInput(f"stop string {text!r} holds a quote or a line end, which a Modelfile cannot hold")
    return f'"{text}"'
