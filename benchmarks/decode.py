"""One completion at a time on the CPU: ours against transformers and against llama.cpp, with the same weights.

What an editor waits for: a prompt of 400 ids, then 128 tokens greedily, batch 1. All contenders get the same ids and
the weights of one model, handed over as a user would: transformers opens our Hugging Face export and generates with a
static cache, llama.cpp opens our GGUF export. Each ignores what would end a text. They take turns in one process, at
the same number of threads; a first turn of each is not counted. Two numbers: the time to the first token, and the
tokens per second after it. llama.cpp's are those that it reports itself, in its usual setting: flash attention where it
chooses it, K/V in fp32 for the fp32 file and else in f16.

What bounds a step: `products` runs every matrix product of one of our steps and nothing else. Untrained weights of the
presets' shapes are as fast as trained ones; `--run` takes a run instead.

    python -m benchmarks.decode --models nano micro small --rounds 7 --json decode.json
"""

import argparse
import contextlib
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import machine, run_main, say, spread, write_json

from inlay.config import BadInput, validate
from inlay.config.compose import compose
from inlay.export.gguf import GGUFType, export_gguf
from inlay.export.hf import export_hf
from inlay.infer.engine import GREEDY, Engine
from inlay.infer.open import Opened, in_memory, open_model
from inlay.infer.sampling import choose
from inlay.model import ModelConfig, build
from inlay.model.decode_step import DecodeStep
from inlay.text.tokenizer import Tokenizer

GOAL_TRANSFORMERS, GOAL_LLAMA = 3.0, 0.7
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
VARIED = ("model.init_std=0.08", "model.embedding_std=0.08")
"""Untrained weights wide enough that the greedy text is not one token for ever."""
SHAPES: dict[str, tuple[str, ...]] = {
    "pico": ("model=pico",),
    "nano": ("model=nano",),
    "micro": ("model=micro",),
    "small": ("model=small",),
    # 99M: what JetBrains serves locally (2405.08704) is of this size.
    "100m": (
        "model=small",
        "model.width=768",
        "model.layers=14",
        "model.blocks.attention.mixer.heads=6",
        "model.blocks.attention.mixer.kv_heads=6",
        "model.blocks.attention.mlp.inner=2048",
    ),
}


@dataclass(frozen=True)
class Completion:
    """What one turn took, and what it wrote."""

    first_seconds: float
    """From the call to the first token."""
    tokens_per_second: float
    """Of the tokens after it."""
    ids: list[int]


Contender = Callable[[list[int], int], Completion]
"""Prompt ids and the number of tokens to write, to what it took."""


class Ours:
    """Our engine, with one row."""

    def __init__(self, opened: Opened) -> None:
        self.engine = Engine(opened)
        self.engine.stop_ids = frozenset()

    def __call__(self, prompt: list[int], tokens: int) -> Completion:
        began = time.perf_counter()
        with torch.inference_mode():
            cache = self.engine.new_cache(1, len(prompt) + tokens)
            logits = self.engine.prefill(cache, [prompt])
            choose(logits, GREEDY, [0], 0).tolist()
        first = time.perf_counter() - began
        # `tokens` of text take `tokens` steps: the last of them finds what would come next.
        generation = self.engine.continue_row(cache, logits, tokens, GREEDY, None)
        return Completion(first, tokens / (time.perf_counter() - began - first), list(generation.ids))


class Transformers:
    """`generate` with a static cache on an exported folder."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        self.model.generation_config.eos_token_id = None

    def __call__(self, prompt: list[int], tokens: int) -> Completion:
        ids = torch.tensor([prompt])
        options: dict[str, Any] = {"do_sample": False, "cache_implementation": "static", "pad_token_id": 0}
        options["attention_mask"] = torch.ones_like(ids)
        began = time.perf_counter()
        with torch.inference_mode():
            self.model.generate(ids, max_new_tokens=1, **options)
            first = time.perf_counter() - began
            made = self.model.generate(ids, max_new_tokens=tokens + 1, **options)
        rest = time.perf_counter() - began - 2.0 * first
        return Completion(first, tokens / rest, made[0, len(prompt) :].tolist()[:tokens])


class Llama:
    """llama.cpp on an exported file, in this process."""

    def __init__(self, file: Path, context: int, *, full: bool) -> None:
        """`full`: K/V in fp32."""
        import xllamacpp as package

        xllamacpp: Any = package  # it has no types
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        kinds = xllamacpp.ggml_type
        params.cache_type_k = params.cache_type_v = kinds.GGML_TYPE_F32 if full else kinds.GGML_TYPE_F16
        params.cache_ram_mib = 0
        params.fit_params = False
        params.port = 0
        params.verbosity = 0
        self.server = xllamacpp.Server(params)

    def __call__(self, prompt: list[int], tokens: int) -> Completion:
        request = {
            "prompt": prompt,
            "n_predict": tokens + 1,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "ignore_eos": True,
            "return_tokens": True,
        }
        data = json.dumps(request).encode()
        found = urllib.request.Request(f"{self.server.listening_address}/completion", data)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(found) as stream:
            reply = json.load(stream)
        timings = reply["timings"]
        if timings["cache_n"] or timings["predicted_n"] != tokens + 1:
            raise BadInput(f"llama.cpp did not write {tokens + 1} tokens after the whole prompt: {timings}")
        rest = timings["predicted_ms"] / 1e3
        # Its predicted time starts when the prompt is done, so the first token is nearly free.
        return Completion(timings["prompt_ms"] / 1e3, tokens / rest, list(reply["tokens"])[:tokens])


class Products:
    """Every matrix product of one of our steps, alone: what no step can be faster than, with torch's products."""

    def __init__(self, opened: Opened) -> None:
        step = DecodeStep(opened.model)
        self._work = [(product, torch.randn(1, product.inputs).to(product.dtype)) for product in step.products]

    def per_second(self, times: int) -> float:
        """Steps per second of products alone."""
        with torch.inference_mode():
            began = time.perf_counter()
            for _ in range(times):
                for product, x in self._work:
                    product(x)
        return times / (time.perf_counter() - began)


def untrained(name: str, vocabulary: int, context: int) -> Opened:
    """A model of a preset's shape, with the vocabulary of a tokenizer trained on Python's own library."""
    data = compose("train", ["data.path=none", *SHAPES[name], *VARIED, f"train.sequence_length={context}"])
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(json.__file__).parents[1].glob("*.py"))[:120]]
    tokenizer = Tokenizer.train(texts, vocabulary)
    model = build(validate(ModelConfig, data["model"]), tokenizer.vocab_size, seed=0).eval().requires_grad_(False)
    return in_memory(model, tokenizer, data, step=0)


def narrowed(opened: Opened, dtype: torch.dtype) -> Opened:
    """A second model with the same weights whose blocks compute in `dtype`, as `open_model` makes it."""
    model = build(opened.model.config, opened.model.vocab_size).eval().requires_grad_(False)
    model.load_state_dict(opened.model.state_dict())
    model.compute_dtype = dtype
    model.blocks.to(dtype)
    return in_memory(model, opened.tokenizer, opened.config, opened.step)


def contenders(opened: Opened, formats: Sequence[GGUFType], folder: Path, context: int) -> dict[str, Contender]:
    """All that take part, by name."""
    made: dict[str, Contender] = {}
    for name, dtype in DTYPES.items():
        if name in formats:
            made[f"ours-{name}"] = Ours(narrowed(opened, dtype))
    export_hf(opened, folder / "hf")
    for name, dtype in DTYPES.items():
        if name in formats:
            made[f"transformers-{name}"] = Transformers(folder / "hf", dtype)
    for number_format in formats:
        file = folder / f"{number_format}.gguf"
        export_gguf(opened, file, number_format)
        made[f"llama-{number_format}"] = Llama(file, context, full=number_format == "f32")
    return made


def measure(opened: Opened, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds of one model, as plain JSON types."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(256, opened.tokenizer.vocab_size, (options.prompt,), generator=generator).tolist()
    with contextlib.redirect_stdout(None):
        taking_part = contenders(opened, options.formats, folder, options.prompt + options.tokens + 64)
    products = Products(taking_part["ours-f32"].engine.opened) if "ours-f32" in taking_part else None  # type: ignore[attr-defined]
    written = {name: call(prompt, options.tokens).ids for name, call in taking_part.items()}
    turns: dict[str, list[Completion]] = {name: [] for name in taking_part}
    alone = []
    for number in range(options.rounds):
        for name, call in taking_part.items():
            turns[name].append(call(prompt, options.tokens))
        if products is not None:
            alone.append(products.per_second(options.tokens))
        say(f"round {number + 1} of {options.rounds}")
    blocks = sum(parameter.numel() for parameter in opened.model.blocks.parameters())
    return {
        "parameters": blocks,
        "vocabulary": opened.tokenizer.vocab_size,
        "bytes_per_token_f32": 4 * (blocks + opened.model.head_weight.numel()),
        **summary(turns, alone),
        "same_ids_as_ours_f32": {
            name: _common(ids, written["ours-f32"]) for name, ids in written.items() if "ours-f32" in written
        },
    }


def summary(turns: dict[str, list[Completion]], products: Sequence[float]) -> dict[str, Any]:
    """Speeds and first tokens of each contender, and ours over each peer's, round by round."""
    speeds = {name: [turn.tokens_per_second for turn in own] for name, own in turns.items()}
    firsts = {name: [turn.first_seconds for turn in own] for name, own in turns.items()}
    faster, sooner, goals = {}, {}, {}
    for ours, peer, goal in PAIRS:
        if ours in turns and peer in turns:
            key = f"{ours} / {peer}"
            faster[key] = spread([a / b for a, b in zip(speeds[ours], speeds[peer], strict=True)])
            sooner[key] = spread([b / a for a, b in zip(firsts[ours], firsts[peer], strict=True)])
            if goal is not None:
                goals[f"{goal} times {peer}"] = faster[key].median >= goal
    result = {
        "tokens_per_second": {name: spread(values).to_dict() for name, values in speeds.items()},
        "first_token_ms": {name: spread([1e3 * v for v in values]).to_dict() for name, values in firsts.items()},
        "times_faster": {name: value.to_dict() for name, value in faster.items()},
        "times_sooner": {name: value.to_dict() for name, value in sooner.items()},
        "goals": goals,
    }
    if products and "ours-f32" in speeds:
        share = [own / alone for own, alone in zip(speeds["ours-f32"], products, strict=True)]
        result["products_per_second"] = spread(list(products)).to_dict()
        result["share_of_products"] = spread(share).to_dict()
    return result


PAIRS: tuple[tuple[str, str, float | None], ...] = (
    ("ours-f32", "transformers-f32", GOAL_TRANSFORMERS),
    ("ours-bf16", "transformers-bf16", GOAL_TRANSFORMERS),
    ("ours-f32", "llama-f32", GOAL_LLAMA),
    ("ours-bf16", "llama-bf16", GOAL_LLAMA),
    ("ours-bf16", "llama-f16", None),
    ("ours-f32", "llama-f16", None),
    ("ours-f32", "llama-q8_0", None),
)
"""Ours, the peer, and the goal: at equal precision only."""


def main(arguments: Sequence[str] | None) -> None:
    """Measures, prints, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.models if name not in SHAPES]
    if unknown:
        raise BadInput(f"unknown model '{unknown[0]}'; allowed: {', '.join(SHAPES)}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = {}
    context = options.prompt + options.tokens + 1
    for name in [options.run] if options.run else options.models:
        say(f"preparing {name}")
        opened = open_model(name, device="cpu") if options.run else untrained(name, options.vocab, context)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(opened, options, Path(folder))
        _print(name, found[name])
    result = {
        "benchmark": "decode",
        "prompt": options.prompt,
        "tokens": options.tokens,
        "rounds": options.rounds,
        "models": found,
        "machine": machine(),
    }
    host = result["machine"]
    print(f"\n{host['processor']}, {host['threads']} threads, torch {host['torch']}, load {host['load_average']:.1f}")
    write_json(options.json, result)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids are equal from the start."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _print(name: str, result: dict[str, Any]) -> None:
    def told(value: dict[str, float], digits: int) -> str:
        return f"{value['median']:>9,.{digits}f} ({value['low']:,.{digits}f} to {value['high']:,.{digits}f})"

    size = f"{result['parameters'] / 1e6:.1f}M parameters in blocks, vocabulary {result['vocabulary']:,}"
    print(f"\n{name}: {size}\n  {'':<20}{'tokens/s, median (range)':<36}ms to the first token")
    for contender, speed in result["tokens_per_second"].items():
        print(f"  {contender:<20}{told(speed, 0):<36}{told(result['first_token_ms'][contender], 1)}")
    if "share_of_products" in result:
        bandwidth = result["bytes_per_token_f32"] * result["products_per_second"]["median"] / 1e9
        print(f"  {'products alone':<20}{told(result['products_per_second'], 0):<36}{bandwidth:,.1f} GB/s of weights")
        print(f"  {'ours-f32, share':<20}{told(result['share_of_products'], 2)}")
    print(f"  {'times faster':<20}{'tokens/s':<36}first token")
    for pair, ratio in result["times_faster"].items():
        print(f"    {pair:<34}{told(ratio, 2):<36}{told(result['times_sooner'][pair], 2)}")
    for goal, reached in result["goals"].items():
        print(f"  {'reached    ' if reached else 'not reached'}  {goal}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="decode", description="One completion on the CPU, against two peers.")
    parser.add_argument("--models", nargs="*", default=["nano", "micro", "small"], help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--run", help="a run to take instead of untrained models")
    parser.add_argument("--formats", nargs="*", default=["f32", "bf16", "f16", "q8_0"], help="number formats")
    parser.add_argument("--vocab", type=int, default=8192, help="tokens of the vocabulary")
    parser.add_argument("--prompt", type=int, default=400, help="ids of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to write after the first")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which all take turns")
    parser.add_argument("--threads", type=int, help="threads of every contender")
    parser.add_argument("--json", help="file for the result")
    return parser


if __name__ == "__main__":
    run_main(main)
