"""Servers' replies as answers: the text, why it ended, and what they tell of its tokens.

With a family's control strings a text is cut at the first of them, which is what the engine does with their ids; some
servers print them. A reply without the fields that it must have is refused in one line. What a server does not say
stays unknown: a log-probability counts only when it covers every token, the terminator included.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from inlay.config import InlayError
from inlay.evaluate.answer import Answer, Ended


def read_completion(reply: Any, stops: Sequence[str] | None, seconds: float, where: str) -> Answer:
    """An answer in OpenAI's style. `stops`: the family's control strings, its terminator first. Raises InlayError."""
    if not isinstance(reply, dict):
        _refuse(where, "no object")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        _refuse(where, "no 'choices'")
    choice = choices[0]
    text = choice.get("text")
    if not isinstance(text, str):
        hint = ", which is a chat's reply" if isinstance(choice.get("message"), dict) else ""
        _refuse(where, f"no 'text' in its choice{hint}")
    reason = choice.get("finish_reason")
    stopped: Ended = "limit" if reason == "length" else "eot" if reason in ("stop", "eos") else "unknown"
    word = choice.get("stop_reason", choice.get("matched_stop"))
    entries = _entries(choice.get("logprobs"))
    usage = reply.get("usage")
    total = _count(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    ends = stopped == "eot" and entries is not None and _has_end(entries, text, stops)
    return _answer(text, stopped, word, entries, ends, total, stops, seconds)


def read_infill(reply: Any, stops: Sequence[str] | None, seconds: float, where: str) -> Answer:
    """An answer of llama.cpp's own kind; the arguments are those of `read_completion`."""
    if not isinstance(reply, dict) or not isinstance(reply.get("content"), str):
        _refuse(where, "no 'content'")
    kind = reply.get("stop_type")
    kinds: dict[Any, Ended] = {"eos": "eot", "limit": "limit", "word": "sentinel"}
    stopped = kinds.get(kind, "unknown")
    entries = _entries({"content": reply.get("completion_probabilities")})
    total = _count(reply.get("tokens_predicted"))
    if entries is not None and total is not None and len(entries) != total:
        entries = None  # none is reported for a token that leaves a character unfinished
    ends = stopped == "eot"
    if ends and entries is None and total:
        total -= 1  # it counts the terminator
    return _answer(reply["content"], stopped, reply.get("stopping_word"), entries, ends, total, stops, seconds)


def _answer(
    text: str,
    stopped: Ended,
    word: Any,
    entries: list[tuple[str, float | None]] | None,
    ends: bool,
    total: int | None,
    stops: Sequence[str] | None,
    seconds: float,
) -> Answer:
    """`entries`: each token's text and log-probability; `ends`: whether the last is the terminator's."""
    leaked: bool | None = None
    if stops is not None:
        if isinstance(word, str) and word in stops:
            stopped = "eot" if word == stops[0] else "sentinel"
        places = [(text.find(one), -len(one), one) for one in stops if one in text]
        if places:
            at, _, found = min(places)
            text, stopped = text[:at], "eot" if found == stops[0] else "sentinel"
            # Tokens behind it were counted too.
            entries, total, ends = None, None, False
        leaked = stopped == "sentinel"
    logprob = eot_logprob = None
    if entries is not None:
        values = [value for _, value in entries if value is not None]
        whole = len(values) == len(entries) and (ends or stopped != "eot")
        logprob = sum(values) if whole else None
        eot_logprob = entries[-1][1] if ends and entries else None
        total = len(entries) - ends
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    broken = 3 * (clean.count("\ufffd") - text.count("\ufffd"))
    return Answer(
        text=clean,
        stopped=stopped,
        tokens=total,
        logprob=logprob,
        eot_logprob=eot_logprob,
        leaked=leaked,
        broken_bytes=broken,
        seconds=seconds,
    )


def _entries(logprobs: Any) -> list[tuple[str, float | None]] | None:
    """Each token's text and log-probability, in either of the two forms in use; None where there are none."""
    if not isinstance(logprobs, dict):
        return None
    content = logprobs.get("content")
    if isinstance(content, list) and all(isinstance(one, dict) for one in content):
        return [(str(one.get("token", "?")), _number(one.get("logprob"))) for one in content] or None
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values) and tokens:
        return [(str(token), _number(value)) for token, value in zip(tokens, values, strict=True)]
    return None


def _has_end(entries: list[tuple[str, float | None]], text: str, stops: Sequence[str] | None) -> bool:
    """Whether the last entry is the terminator's: it shows as nothing, as a control string, or not in the text."""
    tokens = [token for token, _ in entries]
    return tokens[-1] in ("", *(stops or ())) or "".join(tokens[:-1]) == text


def _number(value: Any) -> float | None:
    """A log-probability; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and -1e9 < value <= 1e-3 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _refuse(where: str, what: str) -> NoReturn:
    raise InlayError(f"{where} answers with something else than a completion: {what}; see --api and the address")
