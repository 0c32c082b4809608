"""Attention's forms against each other: one block of a model, forward and backward, on the same packed rows.

Contenders take turns in one process. `whole` is matmul and softmax with an additive mask of all pairs; `ours` is what
training takes on this device (strips on a CPU, FlexAttention on a GPU); `sdpa` is torch's scaled_dot_product_attention
with the same additive mask, which has no softcap; `softcap` is ours with one. Eager is what validation runs, compiled
is what training runs. A ratio above 1 says that ours takes less; that of `softcap` is what a softcap costs.

    python -m benchmarks.attention --lengths 512 1024 2048 --windows 0 64 512 --rounds 7 --json attention.json
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.common import Turn, interleave, machine, ratios, run_main, say, spread, write_json
from torch import Tensor
from torch.nn import functional

from inlay.config import BadInput, validate
from inlay.model import ModelConfig, Transformer, build
from inlay.model.masks import document_mask
from inlay.model.mixers import attention

WIDTH, HEADS, KV_HEADS, HEAD_SIZE, INNER = 256, 4, 4, 64, 768
"""The shape of the preset nano."""
SOFTCAP = 50.0


def main(arguments: Sequence[str] | None) -> None:
    """Measures, prints, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    for length in options.lengths:
        if length < 1 or options.tokens % length:
            raise BadInput(f"--lengths {length}: --tokens {options.tokens} is no multiple of it")
    cases = [
        measure(options, length, window or None)
        for length in options.lengths
        for window in dict.fromkeys(options.windows)
        if window < length
    ]
    result = {
        "benchmark": "attention",
        "tokens": options.tokens,
        "precision": options.precision,
        "compiled": options.compile,
        "device": _device().type,
        "cases": cases,
        "machine": machine(),
    }
    _print(result)
    write_json(options.json, result)


def measure(options: argparse.Namespace, length: int, window: int | None) -> dict[str, Any]:
    """One length and window, as plain JSON types."""
    say(f"length {length}, window {window or 'none'}")
    torch.compiler.reset()
    made = contenders(length, options.tokens // length, window, getattr(torch, options.precision), options.compile)
    for step in made.values():
        step()
        step()
    turns = interleave(made, options.rounds, options.turn)
    return {"length": length, "window": window, **summary(turns)}


def summary(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Milliseconds of each contender, and how they stand to ours, on the clock and in processor time."""
    return {
        "milliseconds": {name: spread([1e3 * turn.seconds for turn in own]).to_dict() for name, own in turns.items()},
        "ratio": {name: spread(ratios(own, turns["ours"])).to_dict() for name, own in turns.items() if name != "ours"},
        "ratio_of_processor_time": {
            name: spread(
                [
                    other.processor_seconds / mine.processor_seconds
                    for other, mine in zip(own, turns["ours"], strict=True)
                ]
            ).to_dict()
            for name, own in turns.items()
            if name != "ours"
        },
    }


def contenders(
    length: int, rows: int, window: int | None, dtype: torch.dtype, compiled: bool
) -> dict[str, Callable[[], object]]:
    """A step of each: one block forward and backward on `rows` rows of `length` tokens, three documents a row."""
    device = _device()
    cuts = [length // 8, length // 2, length - length // 8 - length // 2]
    positions = torch.cat([torch.arange(cut) for cut in cuts]).expand(rows, -1).to(device)
    x = torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    plain, capped = (_model(window, cap, dtype).to(device) for cap in (None, SOFTCAP))
    context = plain.context(positions)
    whole = replace(context, masks={window: document_mask(positions, window, dtype)})

    def step(model: Transformer, context: Any, attend: Callable[..., Tensor] | None = None) -> Callable[[], object]:
        block = model.layers[0]
        run: Callable[..., Any] = torch.compile(block, dynamic=False) if compiled else block

        def once() -> None:
            with patch.object(attention, "attend", attend or attention.attend):
                output, _ = run(x, context, None)
            output.backward(x)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return once

    # Each compiled by itself: a model of its own for sdpa, whose block calls another function.
    return {
        "ours": step(plain, context),
        "softcap": step(capped, context),
        "whole": step(plain, whole),
        "sdpa": step(_model(window, None, dtype).to(device), whole, _sdpa),
    }


def _model(window: int | None, softcap: float | None, dtype: torch.dtype) -> Transformer:
    mixer = {"kind": "attention", "heads": HEADS, "kv_heads": KV_HEADS, "head_size": HEAD_SIZE}
    block = {"mixer": {**mixer, "window": window, "softcap": softcap}, "mlp": {"kind": "swiglu", "inner": INNER}}
    data = {"width": WIDTH, "layers": 1, "blocks": {"one": block}, "pattern": ["one"]}
    model = build(validate(ModelConfig, data), 16, seed=0)
    model.compute_dtype = dtype
    return model


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **_: object) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _print(result: dict[str, Any]) -> None:
    host = result["machine"]
    print(
        f"one block, {WIDTH} wide, {HEADS} heads of {HEAD_SIZE}, {result['tokens']:,} tokens, {result['precision']}, "
        f"{'compiled' if result['compiled'] else 'eager'}; {host['processor']}, {host['threads']} threads, "
        f"torch {host['torch']}, load {host['load_average']:.1f}"
    )
    print("\n length  window    ours ms   times ours, by the clock (processor time): softcap, whole, sdpa")
    for case in result["cases"]:
        clock, processor = case["ratio"], case["ratio_of_processor_time"]
        told = "   ".join(f"{clock[name]['median']:.2f} ({processor[name]['median']:.2f})" for name in clock)
        own = case["milliseconds"]["ours"]["median"]
        print(f"{case['length']:>7}{case['window'] or 'none':>8}{own:>11.1f}   {told}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attention", description="Attention's forms against each other.")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048], help="tokens of a row")
    parser.add_argument("--windows", type=int, nargs="+", default=[0, 64, 512], help="keys of a window; 0 is none")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of activations")
    parser.add_argument("--compile", action="store_true", help="compile the block, as training does")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which all take turns")
    parser.add_argument("--turn", type=int, default=3, help="steps of a turn; its median counts")
    parser.add_argument("--json", help="file for the result")
    return parser


if __name__ == "__main__":
    run_main(main)
