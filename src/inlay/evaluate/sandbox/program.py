"""What is run to judge an answer, and what became of it. Nothing here runs anything.

Code that a model wrote is hostile until shown otherwise: it may loop, fork, fill the disk, read secrets or leave with
status 0 before any test ran. A verdict therefore never rests on the exit status alone; see `inlay.evaluate.sandbox`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["passed", "failed", "unavailable"]
"""`unavailable`: this machine has no toolchain for the language. That is "not measured", never "failed"."""

Cause = Literal[
    "passed", "wrong", "error", "compile", "left_early", "timeout", "memory", "output", "file_size", "processes",
    "crash", "unavailable",
]  # fmt: skip
"""Why: a test said no (an assertion, other output); an exception or a non-zero exit; does not compile; ended before its
tests did; out of time; of memory; printed too much; wrote too much or too many files; too many processes; a signal; no
toolchain."""


@dataclass(frozen=True)
class Limits:
    """What one program may use, all its processes together where the system can count so."""

    seconds: float = 3.0
    """Wall time of one case, start-up included."""
    memory_bytes: int = 1 << 30
    processes: int = 32
    file_bytes: int = 16 << 20
    """Largest file, and all that it may write in its folder."""
    output_bytes: int = 1 << 20
    """Standard output and error together."""
    files: int = 10_000
    """In its folder, folders and links included."""


@dataclass(frozen=True)
class Case:
    """One run of a program: what it reads, and what it must print (None: it must only reach its end)."""

    stdin: str = ""
    expected: str | None = None


@dataclass(frozen=True)
class Program:
    """A whole file in one language, and the cases it has to pass."""

    language: str
    """As `inlay.text.document.language_of` names it."""
    source: str
    cases: tuple[Case, ...] = (Case(),)
    limits: Limits = field(default_factory=Limits)
    compare: Literal["exact", "tokens"] = "tokens"
    """How output is compared: byte for byte, or by whitespace-separated words."""
    file: str | None = None
    """Name of the file, where the language asks for one (`Main.java`); None takes the language's usual."""


@dataclass(frozen=True)
class Outcome:
    """What became of a program."""

    verdict: Verdict
    cause: Cause
    compiled: bool | None = None
    """Whether compiler or parser accepted the file; None where that was not found out."""
    seconds: float = 0.0
    """Wall time of all cases and the compilation."""
    detail: str = ""
    """The last line that says why, for people; at most 300 characters, control characters shown escaped."""

    @property
    def passed(self) -> bool | None:
        """None where it was not measured."""
        return None if self.verdict == "unavailable" else self.verdict == "passed"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Outcome":
        """Raises TypeError for unknown or missing keys."""
        return cls(**data)
