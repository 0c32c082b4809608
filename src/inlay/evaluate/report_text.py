"""What the pages of the report share: their templates, and numbers, times and code as people read them."""

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from inlay import __version__

ORDER_TITLES = {"spm": "SPM", "psm": "PSM", "spm_v2": "SPM v2"}
STOP_TITLES = {
    "eot": "stopped by itself",
    "limit": "did not stop",
    "sentinel": "stopped at a stray token",
    "deadline": "out of time",
}
MINUS = "\N{MINUS SIGN}"


def render(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file; every value is text to be escaped unless it is Markup."""
    return _environment().get_template(template).render(version=__version__, **values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _source(name: str) -> str:
    return resources.files("inlay.evaluate").joinpath(name).read_text(encoding="utf-8")


def duration(seconds: float) -> str:
    """A time in the unit people would say it in."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes."""
    if count < 1e5:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; nothing that rounds to zero has one."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0.0 else f"{'+' if value > 0 else MINUS}{text}"


def last_lines(text: str, count: int) -> tuple[str, bool]:
    """The last lines, and whether there were more."""
    lines = text.split("\n")
    return "\n".join(lines[-count:]), len(lines) > count


def first_lines(text: str, count: int) -> tuple[str, bool]:
    """The first lines, and whether there were more."""
    lines = text.split("\n")
    return "\n".join(lines[:count]), len(lines) > count
