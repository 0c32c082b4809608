"""The training step of a large preset on one GPU: tokens/s, model FLOPs utilisation (MFU), peak memory, and what the
time goes to.

The step is the trainer's own (batch to tensors, context, forward, loss, backward, clip, optimizer), compiled, in bf16,
on batches held in memory, packed and with document masks as the preset says. Without a store one is made of made-up
words, whose tokenizer has as many tokens as asked for: what a step costs depends on sizes and on the lengths of
documents, not on the text. MFU counts what the model needs (three forwards; a query counts the keys that it sees, not
the whole square) against the device's dense bf16 peak. On a CPU it runs too, to be tested.

    python -m benchmarks.proxy_step --preset proxy-0.69b --rows 32 --accumulation 2 --profile --json proxy_step.json
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import Ours, machine, quoted_override, run_main, say, spread, write_json
from torch.profiler import ProfilerActivity, profile

from inlay.model import Transformer
from inlay.model.table import count
from inlay.text.document import document
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter

GOAL_MFU, GOAL_TOKENS = 0.50, 115_000.0
WARM_STEPS = 3
PROFILED_STEPS = 3
SHOWN_KERNELS = 25
PEAKS = (("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.0), ("H200", 989.0), ("A100", 312.0))
"""Dense bf16 TFLOP/s by a part of the device's name, from the vendor's data sheets; the first that fits counts."""


def main(arguments: Sequence[str] | None) -> None:
    """Measures, prints, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result, table = measure(options, Path(folder))
    _print(result, table)
    write_json(options.json, result)


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], str | None]:
    """The result as plain JSON types, and the profiler's table when asked for."""
    store = options.store or made_up_store(folder / "store", options.vocab, options.tokens)
    overrides = [quoted_override("data.path", store), f"model={options.preset}", f"optim={options.optim}", "fim=short"]
    overrides += [f"train.rows={options.rows}", f"train.sequence_length={options.length}"]
    overrides += [f"train.accumulation={options.accumulation}", *options.overrides]
    ours = Ours(overrides, folder / "run")
    trainer = ours.trainer
    train, on_gpu = trainer.config.train, trainer.device.type == "cuda"
    say(f"compiling and warming {WARM_STEPS} steps")
    ours.compile()
    for _ in range(WARM_STEPS):
        ours.step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for number in range(options.steps):
        began = time.perf_counter()
        ours.step()  # ends with the losses on the CPU, so nothing is left in a queue
        seconds.append(time.perf_counter() - began)
        if (number + 1) % 10 == 0:
            say(f"step {number + 1} of {options.steps}")
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    positions = np.concatenate([batch.positions for batch in ours.batches])
    flops = step_flops(trainer.model, trainer.vocab_size, positions) * train.tokens_per_step
    speeds = spread([train.tokens_per_step / each for each in seconds])
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    top = options.peak_tflops or next((value for name, value in PEAKS if on_gpu and name in device), None)
    utilisation = None if top is None else spread([flops / each / (top * 1e12) for each in seconds])
    profiled, table = _profiled(ours, on_gpu) if options.profile else (None, None)
    result = {
        "benchmark": "proxy_step",
        "preset": options.preset,
        "overrides": options.overrides,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "vocabulary": trainer.vocab_size,
        "rows": train.rows,
        "accumulation": train.accumulation,
        "length": train.sequence_length,
        "document_masks": trainer.config.model.document_masks,
        "documents_per_row": float((positions == 0).sum() / len(positions)),
        "optimizer": options.optim,
        "precision": train.precision,
        "compiled": trainer._compiled == "works",
        "notices": trainer.notices,
        "device": device,
        "steps": options.steps,
        "seconds_per_step": spread(seconds).to_dict(),
        "tokens_per_second": speeds.to_dict(),
        "step_teraflop": flops / 1e12,
        "teraflops_per_second": spread([flops / each / 1e12 for each in seconds]).to_dict(),
        "peak_teraflops": top,
        "mfu": None if utilisation is None else utilisation.to_dict(),
        "peak_memory_bytes": peak,
        "goals": {
            f"MFU of {GOAL_MFU:.0%}": None if utilisation is None else utilisation.median >= GOAL_MFU,
            f"{GOAL_TOKENS:,.0f} tokens/s": speeds.median >= GOAL_TOKENS if on_gpu else None,
        },
        "profile": profiled,
        "machine": machine(),
    }
    return result, table


def step_flops(model: Transformer, vocabulary: int, positions: np.ndarray) -> float:
    """FLOPs of training on one token: three forwards, when tokens stand at `positions` [B, T] of their documents."""
    config = model.config
    forward = count(config, vocabulary, context=1).flops  # every score of one key; the others are added here
    slots = positions if config.document_masks else np.broadcast_to(np.arange(positions.shape[1]), positions.shape)

    def scores(layer: int) -> float:
        reach = model.layout[layer].block.mixer.reach
        return model.layers[layer].mixer.score_flops(float(np.minimum(slots + 1, reach or slots.shape[1]).mean()))

    for layer in range(config.layers):
        forward += scores(layer) - model.layers[layer].mixer.score_flops(1.0)
    if model.mtp is not None:
        forward += 2.0 * sum(parameter.numel() for parameter in model.mtp.parameters() if parameter.ndim == 2)
        forward += 2.0 * model.head_weight.numel() + scores(config.layers - 1)
    return 3.0 * forward


def made_up_store(path: Path, vocabulary: int, tokens: int) -> str:
    """A store of about `tokens` tokens in documents of log-normal lengths, with a tokenizer of `vocabulary` tokens."""
    generator = np.random.default_rng(0)
    letters = generator.integers(ord("a"), ord("z") + 1, (max(64, int(0.8 * vocabulary)), 8), dtype=np.uint8)
    words = [row.tobytes().decode() for row in letters]
    say(f"making a tokenizer of {vocabulary:,} tokens and a store of {tokens:,}")
    tokenizer = Tokenizer.train([" ".join(words)], vocab_size=vocabulary, min_frequency=1)
    with StoreWriter(path, tokenizer) as writer:
        made, number = 0, 0
        while made < tokens or number < 2:
            chosen = generator.integers(0, len(words), int(np.clip(generator.lognormal(6.0, 1.0), 16, 8192)))
            lines = (" ".join(words[index] for index in part) for part in np.array_split(chosen, 1 + len(chosen) // 8))
            text = "\n".join(lines) + "\n"
            item = document(text, language="text", path=f"{number}.txt", repo="made-up", licence="none", source="made")
            ids, starts = tokenizer.encode_with_starts([text])[0]
            writer.add("validation" if number == 0 else "train", item, np.asarray(ids), starts)
            made, number = made + len(ids), number + 1
        writer.commit({})
    return str(path)


def _profiled(ours: Ours, on_gpu: bool) -> tuple[dict[str, Any], str]:
    """Where the time of a step goes, by kernel (on a CPU: by operator)."""
    say(f"profiling {PROFILED_STEPS} steps")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    began = time.perf_counter()
    with profile(activities=activities) as found:
        for _ in range(PROFILED_STEPS):
            ours.step()
    elapsed = time.perf_counter() - began
    events = found.key_averages()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # Operators and annotations repeat the time of the kernels inside them: on a GPU only kernels count.
    kernels = [event for event in events if not on_gpu or event.device_type != torch.autograd.DeviceType.CPU]
    kernels = [event for event in kernels if not getattr(event, "is_user_annotation", False)]
    kernels = sorted(kernels, key=lambda event: getattr(event, key), reverse=True)
    busy = sum(getattr(event, key) for event in kernels)
    top = [
        {
            "name": event.key,
            "calls_per_step": event.count / PROFILED_STEPS,
            "milliseconds_per_step": getattr(event, key) / 1e3 / PROFILED_STEPS,
            "share": getattr(event, key) / max(busy, 1e-9),
        }
        for event in kernels[:SHOWN_KERNELS]
    ]
    table = events.table(sort_by=key, row_limit=SHOWN_KERNELS, max_name_column_width=60)
    return {"busy_share": busy / 1e6 / elapsed, "kernels": top}, table


def _print(result: dict[str, Any], table: str | None) -> None:
    def told(value: dict[str, float], digits: int, factor: float = 1.0) -> str:
        low, median, high = (factor * value[key] for key in ("low", "median", "high"))
        return f"{median:>10,.{digits}f}   ({low:,.{digits}f} to {high:,.{digits}f})"

    if table is not None:
        print(table)
    masks = "document masks" if result["document_masks"] else "plainly causal rows"
    print(
        f"{result['parameters']:,} parameters, vocabulary {result['vocabulary']:,}; {result['rows']} rows of "
        f"{result['length']} in {result['accumulation']} micro-batches, {masks}, "
        f"{result['documents_per_row']:.1f} documents a row; {result['optimizer']}, {result['precision']}, "
        f"{'compiled' if result['compiled'] else 'NOT compiled'}"
    )
    print(f"{result['device']}, torch {result['machine']['torch']}; {result['steps']} steps, median (range)\n")
    print(f"  tokens/s       {told(result['tokens_per_second'], 0)}")
    print(f"  ms a step      {told(result['seconds_per_step'], 1, 1e3)}")
    print(f"  TFLOP/s        {told(result['teraflops_per_second'], 2)}")
    if result["mfu"] is None:
        print("  MFU                   ?   no peak is known for this device: give --peak-tflops")
    else:
        print(f"  MFU, %         {told(result['mfu'], 1, 100.0)}   of {result['peak_teraflops']:,.0f} TFLOP/s")
    if result["peak_memory_bytes"] is not None:
        print(f"  peak, GiB      {result['peak_memory_bytes'] / 2**30:>10,.1f}")
    if result["profile"] is not None:
        print(f"  profiled time in kernels, % {100.0 * result['profile']['busy_share']:.1f}")
    for line in result["notices"]:
        print(f"  {line}")
    print()
    for name, reached in result["goals"].items():
        print(f"{'not judged  ' if reached is None else 'reached     ' if reached else 'not reached '} {name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="proxy_step", description="The training step of a large preset on one GPU.")
    parser.add_argument("--preset", default="proxy-0.69b", help="model preset")
    parser.add_argument("--rows", type=int, default=32, help="rows of a step, over all micro-batches")
    parser.add_argument("--accumulation", type=int, default=2, help="micro-batches of a step")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--vocab", type=int, default=100_352, help="tokens of the vocabulary that is made")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="tokens of the store that is made")
    parser.add_argument("--store", help="a token store to read instead")
    parser.add_argument("--optim", default="adamw", help="optimizer of our run")
    parser.add_argument("--steps", type=int, default=30, help="measured steps")
    parser.add_argument("--peak-tflops", type=float, help="the device's dense bf16 peak, where it is not known here")
    parser.add_argument("--profile", action="store_true", help="print where the time of a step goes")
    parser.add_argument("--json", help="file for the result")
    parser.add_argument("overrides", nargs="*", help="more options of our run, as for `inlay train`")
    return parser


if __name__ == "__main__":
    run_main(main)
