"""What every test runs under: one torch thread for each worker, no re-exec of the process, and hypothesis profiles."""

import os
import signal
from pathlib import Path

# Processes that a test starts import this tree, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent.parent / "src"), os.environ.get("PYTHONPATH", "")])
)
# Before any test imports torch: two workers with two OpenMP threads each would fight for two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["INLAY_NO_REEXEC"] = "1"
# The same numbers on every machine, in all processes that a test starts. `make test-precision` runs the rooms that
# compute with the other answer as well.
os.environ.setdefault("INLAY_BFLOAT16_UNITS", "0")
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis

# Started in the background of a shell, a process ignores Ctrl-C, and so does all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
