"""What becomes of a step whose gradient is not finite: the run stops, or the step is skipped, but not for ever."""

from pathlib import Path
from typing import Literal

from inlay.train.guards import Finding

NonFinitePolicy = Literal["stop", "skip"]


class NonFiniteSteps:
    """Counts steps whose gradient was not finite. All ranks see the same norm, and so decide alike."""

    def __init__(self, policy: NonFinitePolicy, most: int) -> None:
        """`most`: steps in a row that `skip` lets pass."""
        self._policy = policy
        self._most = most
        self.in_a_row = 0

    def finding(self, norm: float, step: int, run: Path) -> Finding:
        """What a gradient of this norm at `step` means; the run goes on without the step where that does not stop."""
        self.in_a_row += 1
        stops = self._policy == "stop" or self.in_a_row > self._most
        if not stops:
            return Finding(
                "nonfinite", f"the gradient is not finite at step {step} (norm {norm}): skipped", stops=False
            )
        before = "" if self._policy == "stop" else f", after {self.in_a_row - 1} skipped steps in a row"
        return Finding(
            "nonfinite",
            f"the gradient is not finite at step {step}{before}: start a new run with a smaller learning rate"
            f" (optim.lr=...); the last checkpoint of {run} is from before",
            stops=True,
        )
