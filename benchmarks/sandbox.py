"""What the sandbox costs: milliseconds a test beside a bare process (on the clock, and of processors), tests a second.

The bare contender starts the same interpreter with the same options on the same file and does nothing else: no limits,
no watching, no verdict. All contenders take turns in one process, one test at a time; the overhead is taken inside a
round. Processor time counts all processes of a test, which a busy machine changes less. Tests a second are of many
different programs at once, as an evaluation runs them. Every verdict is checked: a benchmark of programs that did not
run would be quick.

    python -m benchmarks.sandbox --rounds 15 --json sandbox.json
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Turn, interleave, machine, run_main, say, spread, write_json

from inlay.config import BadInput, InlayError
from inlay.evaluate.sandbox import Limits, Program, Sandbox, open_sandbox
from inlay.evaluate.sandbox.bubblewrap import environment
from inlay.evaluate.sandbox.languages import base_python
from inlay.evaluate.sandbox.launcher import FLAGS
from inlay.evaluate.sandbox.unsafe import UnsafeSubprocess

GOAL_MS = 15.0
"""Overhead of a sandboxed test."""
TEST = """from typing import List


def running_totals(numbers: List[int]) -> List[int]:
    totals, total = [], {start}
    for number in numbers:
        total += number
        totals.append(total - {start})
    return totals


def check(candidate):
    assert candidate([]) == []
    assert candidate([1]) == [1]
    assert candidate([1, 2, 3, 4]) == [1, 3, 6, 10]
    assert candidate([-1, 1, -1]) == [-1, 0, -1]


check(running_totals)
"""
LIMITS = Limits(seconds=60.0)


def programs(count: int) -> list[Program]:
    """Different programs that all pass."""
    return [Program("python", TEST.format(start=number), limits=LIMITS) for number in range(count)]


def bare(folder: Path) -> Callable[[], None]:
    """One test in a bare process."""
    path = folder / "program.py"
    path.write_text(TEST.format(start=0), encoding="utf-8")
    command = [base_python()[0], *FLAGS, str(path)]
    given = environment(str(folder))

    def step() -> None:
        done = subprocess.run(
            command, env=given, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise InlayError(f"the bare process failed: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")

    return step


def sandboxed(sandbox: Sandbox) -> Callable[[], None]:
    """One test in `sandbox`."""
    (program,) = programs(1)

    def step() -> None:
        outcome = sandbox.run(program)
        if not outcome.passed:
            raise InlayError(f"a test that must pass did not: {outcome.detail}")

    step()  # the launcher starts
    return step


def throughput(sandbox: Sandbox, count: int) -> float:
    """Tests a second, `sandbox.workers` at a time."""
    began = time.perf_counter()
    passed = sum(bool(outcome.passed) for _, outcome in sandbox.run_many(programs(count)))
    seconds = time.perf_counter() - began
    if passed != count:
        raise InlayError(f"{count - passed} of {count} tests that must pass did not")
    return count / seconds


def overheads(turns: dict[str, list[Turn]], name: str) -> list[float]:
    """Milliseconds more than the bare process took, round by round."""
    return [
        1e3 * (mine.seconds - other.seconds) for mine, other in zip(turns[name], turns["bare process"], strict=True)
    ]


def processor_ms(step: Callable[[], object], count: int, pid: int | None) -> float:
    """Milliseconds of processors that a step takes here and in `pid` (a launcher), with all that they started."""

    def taken() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = time.process_time() + used.ru_utime + used.ru_stime
        if pid is None:
            return own
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return own + sum(int(one) for one in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    before = taken()
    for _ in range(count):
        step()
    return 1e3 * (taken() - before) / count


def measure(rounds: int, per_turn: int, tests: int) -> dict[str, Any]:
    """The whole benchmark, as plain JSON types."""
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds, "tests_per_turn": per_turn, "goal_ms": GOAL_MS}
    with tempfile.TemporaryDirectory() as folder, open_sandbox() as safe, UnsafeSubprocess() as unsafe:
        sandboxes = {safe.name: safe, unsafe.name: unsafe}
        steps: dict[str, Callable[[], object]] = {
            "bare process": bare(Path(folder)),
            **{name: sandboxed(one) for name, one in sandboxes.items()},
        }
        turns = interleave(steps, rounds, per_turn)
        for name in steps:
            pid = sandboxes[name].launchers()[0] if name in sandboxes else None
            shares = [processor_ms(steps[name], tests, pid) for _ in range(3)]
            entry: dict[str, Any] = {
                "ms": spread([1e3 * turn.seconds for turn in turns[name]]).to_dict(),
                "processor_ms": spread(shares).to_dict(),
            }
            if name in sandboxes:
                entry["overhead_ms"] = spread(overheads(turns, name)).to_dict()
                rates = [throughput(sandboxes[name], tests) for _ in range(3)]
                entry |= {"workers": sandboxes[name].workers, "tests_per_second": spread(rates).to_dict()}
            result[name] = entry
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="benchmarks.sandbox", description="What the sandbox costs.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--per-turn", type=int, default=10, help="tests of a contender in a round")
    parser.add_argument("--tests", type=int, default=100, help="programs for tests a second")
    parser.add_argument("--json", help="writes the numbers here")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.per_turn, options.tests) < 1:
        raise BadInput("--rounds, --per-turn and --tests must be at least 1")
    result = measure(options.rounds, options.per_turn, options.tests)
    for name, entry in result.items():
        if not isinstance(entry, dict) or "ms" not in entry:
            continue
        line = (
            f"{name:26}{entry['ms']['median']:6.1f} ms a test, of processors {entry['processor_ms']['median']:.1f} ms"
        )
        if "overhead_ms" in entry:
            over = entry["overhead_ms"]
            line += f"   overhead {over['median']:5.1f} ms ({over['low']:.1f} to {over['high']:.1f})"
            line += f"   {entry['tests_per_second']['median']:6.1f} tests/s with {entry['workers']} workers"
        print(line)
    load = result["machine"]["load_average"]
    say(f"load average {load:.1f}" if load is not None else "load average unknown")
    write_json(options.json, result)


if __name__ == "__main__":
    run_main(main)
