"""Where code that a model wrote is run: under bubblewrap, or not at all unless the user allows it.

`open_sandbox` decides which; a verdict of the one is never shown as that of the other (`Sandbox.name`). It refuses to
run anything unsafely by itself.
"""

from inlay.config import BadInput
from inlay.evaluate.sandbox.base import Sandbox
from inlay.evaluate.sandbox.bubblewrap import Bubblewrap
from inlay.evaluate.sandbox.program import Case, Limits, Outcome, Program
from inlay.evaluate.sandbox.unsafe import UnsafeSubprocess

__all__ = ["Case", "Limits", "Outcome", "Program", "Sandbox", "open_sandbox"]


def open_sandbox(*, allow_unsafe: bool = False, workers: int | None = None) -> Sandbox:
    """Bubblewrap where a first program runs under it; else, if `allow_unsafe`, a process with limits.

    `workers` programs are run at a time: None for one a processor, at most 8. Raises BadInput, in one line, where
    bubblewrap does not work and nothing unsafe is allowed.
    """
    try:
        return Bubblewrap(workers)
    except BadInput as error:
        if allow_unsafe:
            return UnsafeSubprocess(workers)
        raise BadInput(f"{error}; or run the code without protection: --allow-unsafe") from error
