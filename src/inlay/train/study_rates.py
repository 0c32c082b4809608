"""The learning-rate curves of a sweep and their transfer to a target, as numbers for its result.

Runs on one curve are equal in everything but the rate and the seed. A curve is refused where its runs did not cool
down, since the best rate without a cooldown is another one, or were not equally long.
"""

import dataclasses
import json
import math
from collections import defaultdict
from typing import Any

from inlay.config import BadInput, validate
from inlay.config.compose import compose_choice
from inlay.model.config import ModelConfig
from inlay.model.table import count
from inlay.train.curve import Reading, read_curve
from inlay.train.plan import Plan
from inlay.train.search import Outcome, point_overrides, rounded
from inlay.train.sweep import Arm, Sweep, is_complete, trained_tokens
from inlay.train.transfer import (
    CHECK_FACTORS,
    COOLED,
    Setup,
    TargetConfig,
    Transfer,
    overrides,
    tokens_per_step,
    transfer,
)

CHECK_STEPS, CHECK_SHARE = 200, 50
"""Runs that check a rate have this share of the target's tokens (one in fifty), and at least so many steps."""


def read_rates(sweep: Sweep, target: TargetConfig | None) -> list[dict[str, Any]]:
    """Every learning-rate curve of a sweep: its points, what is read from it or why it is refused, and the transfer to
    `target`. Empty for a sweep over something else.

    Raises BadInput for a target that names no curve or no model.
    """
    option = rate_option(sweep)
    if option is None:
        if target is not None:
            raise BadInput("target: the sweep goes over no learning rate (a grid or search over optim.lr)")
        return []
    curves: dict[tuple[str, str], list[Arm]] = defaultdict(list)
    for arm in sweep.arms:
        rest = {key: value for key, value in arm.values.items() if key != option}
        curves[arm.branch, " ".join(point_overrides(rest))].append(arm)
    names = {key: " ".join(filter(None, key)) for key in curves}
    if target is not None and target.arm is not None and target.arm not in names.values():
        raise BadInput(f"target.arm: no curve is called '{target.arm}'; there are {', '.join(names.values())}")
    outcomes = sweep.outcomes()
    found = []
    for key, arms in curves.items():
        asked = target if target is None or target.arm in (None, names[key]) else None
        found.append(_curve(sweep, names[key], option, arms, outcomes, asked))
    return found


def rate_option(sweep: Sweep) -> str | None:
    """The learning rate that a sweep goes over: the first of its options that is one."""
    search = sweep.config.search
    rates = [] if search is None else [name for name in search.parameters if is_rate(name)]
    return rates[0] if rates else None


def is_rate(option: str) -> bool:
    """Whether an option is a learning rate."""
    last = option.rsplit(".", 1)[-1]
    return option.startswith("optim.") and (last == "lr" or last.endswith("_lr"))


def _curve(
    sweep: Sweep,
    name: str,
    option: str,
    arms: list[Arm],
    outcomes: dict[tuple[str, int], Outcome],
    target: TargetConfig | None,
) -> dict[str, Any]:
    points: list[dict[str, Any]] = []
    for arm in sorted(arms, key=lambda arm: (float(str(arm.values[option])), arm.seed)):
        outcome = outcomes.get((arm.name, arm.seed))
        if outcome is not None:
            loss = outcome.value if math.isfinite(outcome.value) else None
            points.append({"rate": arm.values[option], "seed": arm.seed, "loss": loss, "state": outcome.state})
    curve: dict[str, Any] = {
        "arm": name,
        "option": option,
        "metric": sweep.config.metric,
        "optimizer": arms[0].config.optim.kind,
        "points": points,
        "refused": None,
        "reading": None,
        "transfer": None,
    }
    try:
        _check_comparable(sweep, arms, outcomes)
        usable = [point for point in points if point["state"] != "pruned"]
        reading = read_curve(
            (float(point["rate"]), point["seed"], math.inf if point["loss"] is None else point["loss"])
            for point in usable
        )
    except BadInput as error:
        return {**curve, "refused": str(error)}
    curve["reading"] = _plain(dataclasses.asdict(reading))
    if target is not None:
        curve["transfer"] = _transfer(sweep, option, arms, reading, target)
    return curve


def _check_comparable(sweep: Sweep, arms: list[Arm], outcomes: dict[tuple[str, int], Outcome]) -> None:
    """Raises BadInput unless the complete runs cooled down and are of one length."""
    complete = [arm for arm in arms if is_complete(sweep.run(arm))]
    for arm in complete:
        left = cooled_to(arm)
        if left > COOLED:
            raise BadInput(
                f"the schedule of {arm.folder} ends at {left:.0%} of its peak rate: losses of runs that have not cooled"
                " down choose another rate; sweep with schedule=wsd or schedule=cosine"
            )
    lengths = sorted({trained_tokens(sweep.run(arm)) for arm in complete})
    if len(lengths) > 1:
        shown = ", ".join(f"{length:,}" for length in lengths)
        raise BadInput(f"its runs are not of one length ({shown} tokens): give train.tokens or train.steps")


def cooled_to(arm: Arm) -> float:
    """The learning rate at the end of a run as a share of its highest."""
    plan = Plan(arm.config)
    if plan.total_steps is None:
        return arm.config.schedule.after_warmup(1.0)
    highest = max(plan.multiplier(step) for step in range(plan.total_steps))
    return plan.multiplier(plan.total_steps) / highest


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """As it reads back from a file."""
    return json.loads(json.dumps(data))


def _transfer(sweep: Sweep, option: str, arms: list[Arm], reading: Reading, target: TargetConfig) -> dict[str, Any]:
    arm = next(arm for arm in arms if is_complete(sweep.run(arm)))
    config = arm.config
    model = validate(ModelConfig, compose_choice("model", target.model), where=f"target.model={target.model}")
    vocab_size = _vocab_size(sweep, arm)
    length = target.sequence_length or config.train.sequence_length

    def size(of: ModelConfig) -> int:
        return count(of, vocab_size, length).non_embedding

    proxy = Setup(
        "the proxy",
        config.model.width,
        config.model.layers,
        size(config.model),
        config.train.tokens_per_step,
        trained_tokens(sweep.run(arm)),
    )
    parameters = size(model)
    tokens = target.tokens or round(proxy.tokens / proxy.parameters * parameters)
    rule = tokens_per_step(proxy.tokens_per_step, proxy.tokens, tokens)
    rows = max(1, round(target.batch / length)) if target.batch else 2 ** max(0, round(math.log2(rule / length)))
    setup = Setup(target.model, model.width, model.layers, parameters, rows * length, tokens)
    found = transfer(proxy, setup, config.optim, {option: reading.chosen}, round(rule))
    rates = overrides(found)
    base = [f"model={target.model}", f"optim={config.optim.kind}", *_convention(config.optim.to_dict())]
    run = [f"train.sequence_length={length}", f"train.rows={rows}", f"train.tokens={tokens}"]
    chosen = next(quantity.target for quantity in found.quantities if quantity.option == option)
    return {
        **_transfer_data(found),
        "overrides": [*base, *rates, *run],
        "check": {
            "option": option,
            "rates": [rounded(chosen * factor) for factor in CHECK_FACTORS],
            "tokens": min(tokens, max(CHECK_STEPS * rows * length, round(tokens / CHECK_SHARE))),
        },
    }


def _convention(optim: dict[str, Any]) -> list[str]:
    return [f"optim.adjust={optim['adjust']}"] if "adjust" in optim else []


def _transfer_data(found: Transfer) -> dict[str, Any]:
    data = _plain(dataclasses.asdict(found))
    for entry, quantity in zip(data["quantities"], found.quantities, strict=True):
        entry["target"] = quantity.target
    return data


def _vocab_size(sweep: Sweep, arm: Arm) -> int:
    from inlay.model import checkpoint

    return int(checkpoint.newest_good(checkpoint.folders(sweep.run(arm).path))[1]["vocab_size"])
