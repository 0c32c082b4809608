"""Servers' replies as answers: the text, why it ended, and what they tell of its tokens.

With a family's control strings a text is cut at the first of them, which is what the engine does with their ids: some
servers print them. Others pass over them in silence and go on, which counts as leaked. A reply without the fields that
it must have is refused in one line. What a server does not say stays unknown: a log-probability counts only when it
covers every token, the terminator included.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from inlay.config import InlayError
from inlay.evaluate.answer import Answer, Ended


class _Token(NamedTuple):
    """A generated token as a server lists it."""

    text: str
    logprob: float | None
    control: bool
    """Whether it stands for no bytes, as llama.cpp shows control tokens."""


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
    ends = stopped == "eot" and _has_end(entries, text, stops)
    return _answer(text, stopped, word, entries, ends, total, stops, seconds)


def read_infill(reply: Any, stops: Sequence[str] | None, seconds: float, where: str) -> Answer:
    """An answer of llama.cpp's own kind, whose counts hold the terminator; arguments as `read_completion`."""
    if not isinstance(reply, dict) or not isinstance(reply.get("content"), str):
        _refuse(where, "no 'content'")
    kinds: dict[Any, Ended] = {"eos": "eot", "limit": "limit", "word": "sentinel"}
    stopped = kinds.get(reply.get("stop_type"), "unknown")
    entries = _entries({"content": reply.get("completion_probabilities")})
    total = _count(reply.get("tokens_predicted"))
    word = reply.get("stopping_word")
    answer = _answer(reply["content"], stopped, word, entries, stopped == "eot", total, stops, seconds)
    # Every control token shows in its list, so that a list without one says that there was none.
    return replace(answer, leaked=False) if answer.leaked is None and entries else answer


def _answer(
    text: str,
    stopped: Ended,
    word: Any,
    entries: list[_Token],
    ends: bool,
    total: int | None,
    stops: Sequence[str] | None,
    seconds: float,
) -> Answer:
    """`ends`: whether the last token counted is the terminator; `total`: the server's count."""
    leaked: bool | None = True if any(token.control for token in (entries[:-1] if ends else entries)) else None
    if stops is not None:
        if isinstance(word, str) and word in stops:
            stopped = "eot" if word == stops[0] else "sentinel"
        places = [(text.find(one), -len(one), one) for one in stops if one in text]
        if places:
            at, _, found = min(places)
            text, stopped = text[:at], "eot" if found == stops[0] else "sentinel"
            # Tokens behind it were counted too.
            entries, total, ends = [], None, False
        leaked = stopped == "sentinel" or leaked is True
    # llama.cpp lists none that leaves a character unfinished; some servers count the terminator and do not list it.
    unlisted = 1 if stopped == "eot" and not ends else 0
    whole = bool(entries) and (total is None or len(entries) >= total - unlisted)
    logprob: float | None = None
    if whole:
        total = len(entries)
        values = [token.logprob for token in entries if token.logprob is not None]
        logprob = sum(values) if len(values) == total and not unlisted else None
    shows_end = ends and bool(entries) and (whole or entries[-1].text in ("", *(stops or ())))
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(
        text=clean,
        stopped=stopped,
        tokens=total - 1 if ends and total else total,
        logprob=logprob,
        eot_logprob=entries[-1].logprob if shows_end else None,
        leaked=leaked,
        broken_bytes=3 * (clean.count("\ufffd") - text.count("\ufffd")),
        seconds=seconds,
    )


def _has_end(entries: list[_Token], text: str, stops: Sequence[str] | None) -> bool:
    """Whether the last token is the terminator: it shows as nothing, as a control string, or not in the text."""
    if not entries:
        return False
    return entries[-1].text in ("", *(stops or ())) or "".join(token.text for token in entries[:-1]) == text


def _entries(logprobs: Any) -> list[_Token]:
    """The tokens of either of the two forms in use; none where there are none."""
    if not isinstance(logprobs, dict):
        return []
    content = logprobs.get("content")
    if isinstance(content, list) and all(isinstance(one, dict) for one in content):
        return [
            _Token(str(one.get("token", "?")), _number(one.get("logprob")), one.get("bytes") == []) for one in content
        ]
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values):
        return [_Token(str(token), _number(value), False) for token, value in zip(tokens, values, strict=True)]
    return []


def _number(value: Any) -> float | None:
    """A log-probability; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and -1e9 < value <= 1e-3 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _refuse(where: str, what: str) -> NoReturn:
    raise InlayError(f"{where} answers with something else than a completion: {what}; see --api and the address")
