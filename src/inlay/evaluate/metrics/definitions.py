"""What is measured of every task, in the order of tables and legends. It decides names, meanings and what gold must
score; the numbers are made in the other files of this package.

Every exact match here is another's definition under its own name: one model moves by tens of points between them.
"""

from inlay.evaluate.metric import Metric

METRICS: tuple[Metric, ...] = (
    Metric("exact", "exact", "the raw text equals the gold, byte for byte", "high", gold=1.0),
    Metric(
        "exact_post",
        "exact, post",
        "equal after the benchmark's own post-processing of both sides (of the answer alone where it leaves nothing of "
        "the gold)",
        "high",
        gold=1.0,
    ),
    Metric(
        "exact_bigcode",
        "exact, bigcode",
        "equal after both sides are stripped of whitespace, no line cut (bigcode-evaluation-harness, santacoder_fim)",
        "high",
        gold=1.0,
    ),
    Metric(
        "exact_qwen",
        "exact, Qwen",
        "the answer's first line (its second, where the first is empty or one space) equals the gold, both stripped "
        "(Qwen2.5-Coder, fim-bench); measured where the gold itself passes, so not for gaps of several lines",
        "high",
        gold=1.0,
    ),
    Metric(
        "edit_similarity",
        "edit sim.",
        "1 - character edit distance / longer length, raw text (Levenshtein 1966)",
        "high",
        gold=1.0,
    ),
    Metric(
        "edit_similarity_post",
        "edit, post",
        "the same after the benchmark's own post-processing, as for exact, post",
        "high",
        gold=1.0,
    ),
    Metric("first_line", "first line", "post-processed: equal up to the first line end", "high", gold=1.0),
    Metric(
        "syntax_valid",
        "valid",
        "with the answer in place tree-sitter finds no error and nothing missing, where it finds none with the gold; a "
        "text that hangs or crashes the parser is not valid",
        "high",
        gold=1.0,
    ),
    Metric(
        "compiles",
        "compiles",
        "Python: compile() takes the file with the answer in place, where it takes it with the gold; other languages: "
        "the compiler took what was run",
        "high",
        gold=1.0,
    ),
    Metric("passed", "pass@1", "the benchmark's tests pass with the raw text", "high", gold=1.0),
    Metric("passed_post", "pass@1, post", "the tests pass with the post-processed text", "high", gold=1.0),
    *(
        Metric(
            f"pass@{k}",
            f"pass@{k}",
            f"chance that one of {k} raw answers passes: 1 - C(n - c, {k}) / C(n, {k}) for c of n that pass, unbiased "
            "(2107.03374)",
            "high",
            gold=1.0,
        )
        for k in (10, 100)
    ),
    Metric("stopped", "stops", "ended with its terminator inside the budget", "high", gold=1.0),
    Metric("overrun_tokens", "overrun", "mean tokens beyond the gold's length", "low", share=False, gold=0.0),
    Metric("underrun_tokens", "underrun", "mean tokens short of the gold's length", "low", share=False, gold=0.0),
    Metric("continued", "runs on", "begins with the gold and continues", "low", gold=0.0),
    Metric("underrun", "too short", "stopped at a proper beginning of the gold", "low", gold=0.0),
    Metric("empty", "empty", "no text where the gold has some", "low", gold=0.0),
    Metric("empty_right", "empty right", "no text where the gold is empty", "high", gold=1.0),
    Metric(
        "indentation",
        "indentation",
        "each line that begins in the gap has the leading whitespace of the gold's line in that place, blank lines "
        "aside, for as many lines as both have; measured where the gold has such a line, and wrong where the answer "
        "has none",
        "high",
        gold=1.0,
    ),
    Metric(
        "suffix_copied",
        "copies suffix",
        "ends with the suffix's first line that is not blank, of 4 characters or more, where the gold does not",
        "low",
        gold=0.0,
    ),
    Metric("looped", "loops", "reached the budget repeating itself", "low", gold=0.0),
    Metric(
        "leaked",
        "leaks",
        "contains a special token (or the text of a known format's sentinel) or broken UTF-8, or ended at a stop token "
        "that is not the terminator",
        "low",
        gold=0.0,
    ),
    Metric(
        "middle_nats",
        "nats/token",
        "loss of the gold middle per token, teacher-forced, without terminator",
        "low",
        share=False,
    ),
    Metric("middle_bpb", "bits/byte", "the same loss in bits per byte of the middle", "low", share=False),
    Metric("terminator_nats", "end nats", "loss of the terminator after the gold middle", "low", share=False),
    Metric(
        "l2r_bpb",
        "L2R bits/byte",
        "bits per byte of the same middle read left to right after the prefix alone: above bits/byte by what the "
        "suffix tells",
        "low",
        share=False,
    ),
    Metric(
        "document_bpb",
        "text bits/byte",
        "bits per byte of prefix, middle and suffix read left to right, as far as they fit: loss without infilling",
        "low",
        share=False,
    ),
)
"""Every task's metrics. A title has at most 14 characters."""

PER_EXAMPLE = frozenset(
    ("pass@10", "pass@100", "middle_nats", "middle_bpb", "terminator_nats", "l2r_bpb", "document_bpb")
)
"""Metrics that the first answer of an example carries for all of them, so that a choice of its answers has none."""
