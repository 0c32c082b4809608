"""The peak for the whole run after warmup: for measuring, and for runs that others branch off.

A run that never cools down ends at a higher loss than the same run with a cooldown: compare it with none that has one.
"""

from typing import Literal

from inlay.train.schedule import Schedule, schedules


@schedules.register
class Constant(Schedule):
    """Never falls."""

    kind: Literal["constant"] = "constant"

    def after_warmup(self, progress: float) -> float:
        return 1.0

    @property
    def stable(self) -> float:
        return 1.0

    @property
    def fall(self) -> str:
        return "never falls"
