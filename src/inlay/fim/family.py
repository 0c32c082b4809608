"""Format families: the sentinel strings, orders and stop tokens a model was (or will be) trained with.

A family is one file in `inlay.fim.families`. It says strings; `FimFormat` resolves them against a tokenizer. Its
docstring says where its facts come from; what nobody has checked at the source is marked (unverified).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import model_validator

from inlay.config import Config, Registry

Order = Literal["psm", "spm", "spm_v2", "spm_joint", "spm_open"]
ORDERS: tuple[Order, ...] = ("psm", "spm", "spm_v2", "spm_joint", "spm_open")

families = Registry("format family", "inlay.fim.families")


class RepositoryForm(Config):
    """How files of one repository stand in one window before the file that is filled.

    The text is `repo NAME after_repo`, then for each file `file before_path PATH after_path TEXT after_file`, then the
    same for the last file up to its text.
    """

    repo: str | None = None
    """Sentinel before the repository's name; None where the form has no name."""
    after_repo: str = ""
    """Text after the name."""
    file: str | None = None
    """Sentinel before each path; None where `before_path` marks it in plain text."""
    first_file: bool = True
    """Whether the sentinel stands before the first file as well, or only between files."""
    before_path: str = ""
    after_path: str = "\n"
    after_file: str = ""
    """Text after a whole file's text."""
    place: Literal["before", "path_in_prefix", "in_prefix"] = "before"
    """Where it stands: before the block; before it, but for the last path at the head of the prefix; or all there."""

    def pieces(self, name: str, files: Sequence[str], path: str) -> list["Piece"]:
        """The form for a repository, the paths of its other files and the path of the file that follows."""
        found = []
        if self.repo is not None:
            found += [Piece("sentinel", self.repo), Piece("label", name + self.after_repo)]
        for index, other in enumerate((*files, path)):
            last = index == len(files)
            if self.file is not None and (self.first_file or index):
                found.append(Piece("sentinel", self.file))
            found.append(Piece("label", self.before_path + other + self.after_path))
            if not last:
                found += [Piece("text", "", index), Piece("label", self.after_file)]
        inside = {"before": 0, "path_in_prefix": 1, "in_prefix": len(found)}[self.place]
        return [piece._replace(inside=len(found) - index <= inside) for index, piece in enumerate(found)]


class Piece(NamedTuple):
    """A piece of a repository form: a sentinel, a label (name or path with what is around it), a file's text."""

    role: Literal["sentinel", "label", "text"]
    text: str
    file: int = -1
    """Which file's text."""
    inside: bool = False
    """Whether it stands at the head of the prefix."""


class Family(Config):
    """One family's strings. `prefix`, `middle`, `suffix` open the three parts; `terminator` ends the middle."""

    kind: str
    prefix: str
    suffix: str
    middle: str | None
    """None where the middle follows the prefix with nothing between them (Codestral)."""
    pad: str
    """Fills rows; never the terminator, which would then never be learned (deepseek-ai/DeepSeek-Coder#163)."""
    terminator: str
    end: str | None = None
    """Ends a left-to-right document, where that is not the terminator."""
    bos: str | None = None
    """Stands first in every row and prompt."""
    stops: tuple[str, ...] = ()
    """Tokens that end a completion beside the terminator, the end and the sentinels."""
    orders: tuple[Order, ...]
    """The orders it was trained with; any other is refused. Prompts are in the first unless told otherwise."""
    spacing: Literal["none", "dummy"] = "none"
    """`dummy`: under a SentencePiece tokenizer the text that opens a document or prefix keeps its leading space."""
    hint_start: str | None = None
    hint_end: str | None = None
    """Sentinels of line hints (FIM-SE, 2405.17103); None where the family has none."""
    repository: RepositoryForm | None = None

    @property
    def order(self) -> Order:
        """The order of a prompt when none is asked for."""
        return self.orders[0]

    @model_validator(mode="after")
    def _orders(self) -> "Family":
        if not self.orders:
            raise ValueError("orders: give at least one")
        for order in self.orders:
            if (order == "spm_open") != (self.middle is None):
                raise ValueError(f"orders: '{order}' needs {'no' if order == 'spm_open' else 'a'} middle sentinel")
        return self

    def strings(self) -> dict[str, str]:
        """Every control string by its role, in the order in which people speak of them; stops are numbered."""
        form = self.repository
        roles = {
            "bos": self.bos,
            "prefix": self.prefix,
            "suffix": self.suffix,
            "middle": self.middle,
            "terminator": self.terminator,
            "end": self.end,
            "pad": self.pad,
            "repository": form.repo if form else None,
            "file": form.file if form else None,
            **{f"stop {index}": stop for index, stop in enumerate(self.stops)},
        }
        return {role: text for role, text in roles.items() if text is not None}

    def layout(self, order: Order, hinted: bool = False) -> tuple[str, ...]:
        """The parts of a prompt and its middle in order, by name: `prefix`, `suffix`, `middle` are sentinels, `p`,
        `s`, `m` texts, `hints` the line hints with their sentinels.

        2207.14255 section 3 and appendix D; the CodeLlama paper (2308.12950) section 2.3 for the joint order.
        """
        hints = ("hints",) if hinted else ()
        if order == "psm":
            return ("prefix", "p", "suffix", "s", *hints, "middle", "m")
        if order == "spm":
            return ("suffix", "s", "prefix", "p", *hints, "middle", "m")
        if order == "spm_open":
            return ("suffix", "s", "prefix", "p", "m")
        return ("prefix", "suffix", "s", *hints, "middle", "p", "m")


def load_family(name: str) -> Family:
    """The family called `name`. Raises ConfigError that names the nearest one."""
    family = families.get(name)()
    assert isinstance(family, Family)
    return family


def all_families() -> dict[str, Family]:
    """Every family by name, ours first."""
    names = sorted(families.members(), key=lambda name: (name != "inlay", name))
    return {name: load_family(name) for name in names}
