"""Servers as subjects, over real connections to servers that each test makes."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.subjects.http_server import (
    CLOSE,
    Asked,
    Fake,
    Reply,
    infilled,
    llama,
    openai,
    serving,
)
from tests.export.models import SHAPES, opened
from tests.tiny_run import tiny_tokenizer

from inlay.config import BadInput, InlayError
from inlay.evaluate.answer import Answer
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.subjects.server import ServerSubject
from inlay.evaluate.task import ContextFile, Example
from inlay.export.gguf import export_gguf
from inlay.export.llama_server import LlamaServer
from inlay.fim.family import load_family
from inlay.fim.format import FimFormat
from inlay.infer.engine import Engine

INLAY = tuple(load_family("inlay").strings().values())
FILES = (ContextFile("near.py", "near = 1\n"), ContextFile("far.py", "far = 2\n"))


def gap(name: str, prefix: str = "a = ", suffix: str = "\n", **fields: Any) -> Example:
    return Example(name, "g", "line", prefix, "gold", suffix, **fields)


EXAMPLES = [gap(f"e{number}", prefix=f"value_{number} = ") for number in range(9)]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INLAY_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def open_server(url: str, **options: Any) -> "closing[ServerSubject]":
    return closing(ServerSubject(url, **{"pause": 0.001, "timeout": 30.0, **options}))


def ask(
    subject: ServerSubject, examples: list[Example], order: str | None = None, decoding: Decoding = GREEDY
) -> list[list[Answer]]:
    found = dict(subject.answers(examples, order or subject.orders[0], 32, decoding))
    return [found[index] for index in range(len(examples))]


def one(reply: Any, **options: Any) -> Answer:
    """What becomes of a reply of /infill."""
    with serving(llama(lambda body: reply)) as fake, open_server(fake.url, **options) as subject:
        (answer,) = ask(subject, [gap("e")])[0]
        assert answer.seconds is not None
        assert answer.seconds > 0.0
        return Answer.from_dict({**answer.to_dict(), "seconds": None})


def refused(message: str, answer: Any, kind: type[Exception] = InlayError, **options: Any) -> str:
    """Opening a server, or asking it once, ends in one line."""
    with (
        serving(answer) as fake,
        pytest.raises(kind, match=message) as error,
        open_server(fake.url, **options) as found,
    ):
        ask(found, [gap("e")])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_llama_is_asked_for_infills() -> None:
    with serving(llama(lambda body: infilled("x" + body["input_prefix"], [("x", -0.5), ("", -0.25)]))) as fake:
        with open_server(fake.url + "/v1/") as subject:
            assert subject.orders == ("infill",)
            found = ask(subject, [gap("e", "före ", "\nefter", context=FILES), gap("f")])
            identity = json.loads(json.dumps(subject.identity))
    assert [answers[0].text for answers in found] == ["xföre ", "xa = "]
    first, second = sorted(fake.posted("/infill"), key=lambda body: "input_extra" not in body)
    assert "input_extra" not in second
    # The most useful file stands last, nearest to the gap.
    assert first.pop("input_extra") == [
        {"filename": "far.py", "text": "far = 2\n"},
        {"filename": "near.py", "text": "near = 1\n"},
    ]
    seed = first.pop("seed")
    assert 0 <= seed < 2**31
    assert seed != second["seed"]
    assert first == {
        "input_prefix": "före ",
        "input_suffix": "\nefter",
        "n_predict": 32,
        "temperature": 0.0,
        "samplers": ["temperature"],
        "n_probs": 1,
        "return_tokens": True,
        "cache_prompt": False,
        "stream": False,
        "model": "/models/coder.gguf",
    }
    assert identity == {
        "name": "coder",
        "kind": "server",
        "step": None,
        "weights_hash": None,
        "url": fake.url,
        "api": "infill",
        "model": "/models/coder.gguf",
        "format": None,
        "says": {"build": "b9999", "context": 512, "n_params": 1000, "size": 4000},
        "suffix_read": None,
        "sentinels_read": None,
        "context": "2 bytes a token of 512",
        "narrowed": 0,
    }


def test_what_llama_says_of_an_answer() -> None:
    whole = [("a", -0.5), ("b", -1.0), ("", -0.25)]
    assert one(infilled("ab", whole)) == Answer("ab", "eot", 2, -1.75, -0.25, leaked=False)
    assert one(infilled("ab", whole[:2], "limit")) == Answer("ab", "limit", 2, -1.5, None, leaked=False)
    assert one(infilled("", whole[2:])) == Answer("", "eot", 0, -0.25, -0.25, leaked=False)
    # A control token inside shows as nothing, and the answer went on.
    assert one(infilled("ab", [whole[0], *whole[1:], *whole[1:]])).leaked is True
    # No log-probability is given for a token that leaves a character unfinished: then the sum is not known.
    assert one({**infilled("é", whole[1:]), "tokens_predicted": 3}) == Answer("é", "eot", 2, None, -0.25, leaked=False)
    assert one({"content": "x"}) == Answer("x", "unknown")
    assert one({**infilled("ab", whole, "word"), "stopping_word": "?"}).stopped == "sentinel"
    with_family = one({**infilled("a<|file_sep|>b", whole)}, api="infill", family="inlay")
    assert with_family == Answer("a", "sentinel", None, None, None, leaked=True)


def test_sampling_is_ours_and_keyed_by_the_example() -> None:
    decoding = Decoding(temperature=0.5, top_p=0.9, top_k=40, samples=3, seed=7)
    with serving(llama(lambda body: infilled(str(body["seed"]), [("", 0.0)]))) as fake:
        with open_server(fake.url, concurrency=5) as subject:
            together = ask(subject, EXAMPLES, decoding=decoding)
            alone = [ask(subject, [example], decoding=decoding)[0] for example in reversed(EXAMPLES)]
            other = ask(subject, EXAMPLES, decoding=Decoding(temperature=0.5, samples=3, seed=8))
            ask(subject, EXAMPLES[:1], decoding=Decoding(infill_sampler=True, top_k=40, top_p=0.99))
    seeds = [[answer.text for answer in answers] for answers in together]
    assert seeds == [[answer.text for answer in answers] for answers in reversed(alone)]
    assert len({seed for found in seeds for seed in found}) == 27
    assert not {seed for found in seeds for seed in found} & {answer.text for found in other for answer in found}
    first, last = fake.posted("/infill")[0], fake.posted("/infill")[-1]
    assert first["samplers"] == ["top_k", "temperature", "top_p"]
    assert (first["temperature"], first["top_p"], first["top_k"]) == (0.5, 0.9, 40)
    assert last["samplers"] == ["top_k", "top_p", "infill"]


def test_completions_with_a_suffix() -> None:
    with serving(openai(lambda body: body["prompt"] + "|" + body["suffix"])) as fake:
        with open_server(fake.url) as subject:
            assert (subject.orders, subject.suffix_read) == (("completions",), True)
            probes = len(fake.posted("/v1/completions"))
            found = ask(subject, EXAMPLES[:2], decoding=Decoding(temperature=0.2, top_p=0.95))
            assert subject.identity["model"] == "acme/coder-1b"
            assert subject.identity["says"] == {"context": 2048}
    assert [answers[0].text for answers in found] == ["value_0 = |\n", "value_1 = |\n"]
    body = min(fake.posted("/v1/completions")[probes:], key=lambda one: one["prompt"])
    body.pop("seed")
    assert body == {
        "prompt": "value_0 = ",
        "suffix": "\n",
        "max_tokens": 32,
        "temperature": 0.2,
        "top_p": 0.95,
        "stream": False,
        "logprobs": 1,
        "model": "acme/coder-1b",
    }


@pytest.mark.parametrize("family", ["inlay", "qwen2.5-coder", "starcoder2", "codegemma", "seed-coder"])
def test_a_family_as_text_is_the_format_itself(family: str) -> None:
    """The witness: the text of the ids that FimFormat makes."""
    strings = load_family(family).strings()
    tokenizer = tiny_tokenizer()
    definition = json.loads(tokenizer.definition)
    added = list(dict.fromkeys(strings.values()))
    for token, name in zip(definition["added_tokens"], added, strict=False):
        token["content"] = name
    fim_format = FimFormat.load(family, type(tokenizer)(json.dumps(definition)))
    example = gap("e", "def f(", "):\n    pass\n", context=FILES, repo="acme/tools", path="pkg/main.py")
    encode = fim_format.tokenizer.encode
    with serving(openai(lambda body: "", tuple(added))) as fake, open_server(fake.url, family=family) as subject:
        assert subject.sentinels_read is True
        for order in subject.orders:
            for header in (False, True) if load_family(family).repository else (False,):
                asked = example if header else gap("e", "def f(", "):\n    pass\n")
                ask(subject, [asked], order)
                made = (
                    fim_format.repository(
                        "acme/tools", [(file.path, encode(file.text)) for file in reversed(FILES)], "pkg/main.py"
                    )
                    if header
                    else None
                )
                ids = fim_format.prompt(encode(asked.prefix), encode(asked.suffix), order, made)  # type: ignore[arg-type]
                # The beginning of a sequence is the server's to add.
                text = fim_format.tokenizer.decode(ids[fim_format.bos is not None :])
                body = fake.posted("/v1/completions")[-1]
                assert body["prompt"] == text
                assert body["stop"][0] == load_family(family).terminator
                assert set(body["stop"]) == set(strings.values())
                assert "suffix" not in body


def test_a_family_that_does_not_fit_is_refused() -> None:
    refused("format family 'inlay' does not fit the model at .* as one token each", openai(lambda body: ""), BadInput,
            family="inlay")  # fmt: skip
    refused("format family 'codellama' cannot be sent as text", openai(lambda body: ""), BadInput, family="codellama")
    refused("unknown format family 'qwen'", openai(lambda body: ""), BadInput, family="qwen")


def test_a_server_that_passes_over_the_suffix_is_refused() -> None:
    def deaf(asked: Asked) -> Any:
        return openai(lambda body: "x")(Asked(asked.method, asked.path, {**asked.body, "suffix": ""}, {}))

    refused("takes no notice of 'suffix' .* name the model's format with --family NAME", deaf, BadInput)
    no_suffix = Reply({"message": "suffix is not currently supported"}, 400)
    refused("400: suffix is not currently supported; name the model's format", openai(lambda body: no_suffix), BadInput)


def test_a_server_that_counts_no_tokens_cannot_be_checked() -> None:
    reply = {"choices": [{"text": "x", "finish_reason": "length"}]}
    for options, name in (({}, "suffix_read"), ({"family": "inlay"}, "sentinels_read")):
        with serving(openai(lambda body: Reply(reply))) as fake, open_server(fake.url, **options) as subject:
            assert subject.identity[name] is None
            assert ask(subject, [gap("e")])[0][0].stopped == "limit"


def completed(choice: dict[str, Any], usage: Any = None, **options: Any) -> Answer:
    """What becomes of a choice in OpenAI's style."""

    def complete(body: dict[str, Any]) -> Any:
        return Reply({"choices": [choice], "usage": usage}) if body["max_tokens"] == 32 else ""

    with serving(openai(complete, INLAY)) as fake, open_server(fake.url, **options) as subject:
        return Answer.from_dict({**ask(subject, [gap("e")])[0][0].to_dict(), "seconds": None})


def test_what_openai_servers_say_of_an_answer() -> None:
    classic = {"tokens": ["a", "b", "</s>"], "token_logprobs": [-0.5, -1.0, -0.25]}
    like_chat = {"content": [{"token": "a", "logprob": -0.5}, {"token": "", "logprob": -0.25}]}
    stop = {"text": "ab", "finish_reason": "stop"}
    assert completed({**stop, "logprobs": classic}) == Answer("ab", "eot", 2, -1.75, -0.25)
    assert completed({**stop, "text": "a", "logprobs": like_chat}) == Answer("a", "eot", 1, -0.75, -0.25)
    # The terminator is not among them: its log-probability, and with it the sum, is not known.
    short = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0]}
    assert completed({**stop, "logprobs": short}) == Answer("ab", "eot", 2)
    assert completed({"text": "ab", "finish_reason": "length", "logprobs": short}) == Answer("ab", "limit", 2, -1.5)
    assert completed({**stop, "logprobs": {"tokens": ["a", "b", ""], "token_logprobs": [None, -1, -2]}}).logprob is None
    assert completed(stop, {"completion_tokens": 3}) == Answer("ab", "eot", 3)
    assert completed({"text": "ab", "finish_reason": "content_filter"}) == Answer("ab", "unknown")
    assert completed({"text": "\ud800b", "finish_reason": "stop"}) == Answer("\ufffdb", "eot", broken_bytes=3)


def test_control_strings_end_an_answer_where_the_family_is_known() -> None:
    def stopped(choice: dict[str, Any]) -> tuple[str, str, bool | None]:
        found = completed({"finish_reason": "stop", **choice}, {"completion_tokens": 9}, family="inlay")
        return found.text, found.stopped, found.leaked

    assert stopped({"text": "ab"}) == ("ab", "eot", False)
    assert stopped({"text": "ab", "stop_reason": None}) == ("ab", "eot", False)
    assert stopped({"text": "ab", "stop_reason": "<|endoftext|>"}) == ("ab", "eot", False)
    assert stopped({"text": "ab", "stop_reason": "<|file_sep|>"}) == ("ab", "sentinel", True)
    assert stopped({"text": "ab<|endoftext|>c<|fim_pad|>", "finish_reason": "length"}) == ("ab", "eot", False)
    assert stopped({"text": "a<|fim_middle|>b<|endoftext|>"}) == ("a", "sentinel", True)


def test_control_strings_in_an_example_are_its_trouble() -> None:
    with serving(openai(lambda body: "", INLAY)) as fake, open_server(fake.url, family="inlay") as subject:
        assert subject.gold_trouble(gap("e"), "psm", 8) is None
        assert subject.gold_trouble(gap("e", "x = '<|fim_middle|>'"), "psm", 8) == "its text holds '<|fim_middle|>'"


def flaky(faults: list[Any], good: Any) -> Any:
    """Answers /infill with the faults first; good from then on."""
    left = iter(faults)
    return llama(lambda body: next(left, good))


def test_stumbles_are_tried_again() -> None:
    good = infilled("ok", [("ok", -1.0), ("", -1.0)])
    faults = [Reply({"error": "boom"}, 500), Reply(b"<html>", 502), CLOSE, Reply({}, 429, {"Retry-After": "0"}), CLOSE]
    with serving(flaky(faults, good)) as fake, open_server(fake.url, concurrency=1) as subject:
        assert ask(subject, [gap("e")])[0][0].text == "ok"
        assert len(fake.posted("/infill")) == 6
    message = refused(r"failed 6 times \(status 500: boom\): see to the server", flaky(faults[:1] * 6, good))
    assert "/infill" in message
    refused("failed 2 times", flaky([CLOSE] * 2, good), attempts=2)


def test_what_was_refused_is_not_asked_again() -> None:
    count = []

    def complete(body: dict[str, Any]) -> Reply:
        count.append(body)
        return Reply({"error": {"code": 400, "message": "top_p must be\nsmaller"}}, 400)

    refused("answered 400: top_p must be smaller", llama(complete))
    assert len(count) == 1


def test_a_slow_server_is_not_waited_for_without_end() -> None:
    release = threading.Event()

    def slow(body: dict[str, Any]) -> dict[str, Any]:
        release.wait(20)
        return infilled("late", [("", 0.0)])

    try:
        refused(r"/infill gave no answer in 0.3 s: is the server busy", llama(slow), timeout=0.3)
    finally:
        release.set()


BAD: list[tuple[Any, str]] = [
    (Reply(b"{'content'"), "answers with something that is no JSON"),
    (Reply(b""), "answers with nothing"),
    (Reply(b"\n<!DOCTYPE html><html></html>"), "answers with a web page: is it a completion server's address"),
    ([1, 2], "something else than a completion: no 'content'"),
    ({"content": 7}, "something else than a completion: no 'content'"),
    ({}, "something else than a completion: no 'content'"),
    (Reply(b"", 302, {"Location": "http://elsewhere/"}), "answered 302: it sends elsewhere"),
    (Reply({"detail": [{"msg": "field required"}]}, 422), "answered 422: field required"),
    (Reply({"error": {"message": "Infill is not supported by this model: suffix token is missing"}}, 400),
     "a model without infilling tokens cannot be asked so"),
    (Reply({"error": {"message": "File Not Found"}}, 404), "has no infill endpoint"),
    (Reply(b"\x00\x1b[31mno", 400), r"answered 400: \[31mno"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "message"), BAD)
def test_replies_that_are_no_completion(reply: Any, message: str) -> None:
    refused(message, llama(lambda body: reply))


def test_replies_in_openai_style_that_are_no_completion() -> None:
    for reply, message in (
        ({"choices": []}, "no 'choices'"),
        ({"choices": "x"}, "no 'choices'"),
        ({"choices": [{"message": {"content": "x"}}]}, "no 'text' in its choice, which is a chat's reply"),
        ({"choices": [{"text": None}]}, "no 'text'"),
        ("text", "no object"),
    ):
        refused(message, openai(lambda body, reply=reply: Reply(reply)))
    gone = Reply({"error": {"message": "The model `x` does not exist"}}, 404)
    refused("has no model 'x'", openai(lambda body: gone), BadInput, model="x", api="completions")


def test_addresses() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(InlayError, match=r"no server answers at http://127.0.0.1:\d+ \(connection refused\)"):
            ServerSubject(f"http://127.0.0.1:{unused.getsockname()[1]}")
    for url, message in (
        ("http://", "no server's address"),
        ("http://host:port", "cannot be read"),
        ("http://host:0", "no server's address"),
        ("http://ho st", "no server's address"),
        ("http://user:secret@host", "put a key in the environment variable INLAY_API_KEY"),
        ("http://host/v1?key=secret", "put a key in the environment variable INLAY_API_KEY"),
        ("http://host/v1/chat/completions", "is for chats"),
    ):
        with pytest.raises(BadInput, match=message) as error:
            ServerSubject(url)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)
    refused("answers neither /props .* nor /v1/models", lambda asked: Reply(b"<html>", 200), BadInput)
    with serving(openai(lambda body: "x")) as fake, open_server(f"{fake.url}/v1/completions") as subject:
        assert ask(subject, [gap("e")])[0][0].text == "x"
    with serving(lambda asked: {"choices": [{"text": asked.path}]}) as fake:
        with open_server(f"{fake.url}/beta/completions", family="inlay", model="m") as subject:
            assert ask(subject, [gap("e")])[0][0].text == "/beta/completions"
        with pytest.raises(BadInput, match="ends in /completions, so --api infill"):
            ServerSubject(f"{fake.url}/v1/completions", api="infill")


def test_models_are_chosen_by_name() -> None:
    cards = {"data": [{"id": "one"}, {"id": "two"}]}

    def two(asked: Asked) -> Any:
        return cards if asked.path == "/v1/models" else openai(lambda body: body["model"])(asked)

    with serving(two) as fake:
        with pytest.raises(BadInput, match="serves 2 models: say which with --model, one of one, two"):
            ServerSubject(fake.url)
        with pytest.raises(BadInput, match="has no model 'three'; it has one, two"):
            ServerSubject(fake.url, model="three")
        with open_server(fake.url, model="two") as subject:
            assert ask(subject, [gap("e")])[0][0].text == "two"


def test_keys_go_where_they_belong_and_stand_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent() -> str | None:
        with serving(llama(lambda body: infilled("", [("", 0.0)]))) as fake, open_server(fake.url) as subject:
            ask(subject, [gap("e")])
            return {one.headers.get("Authorization") for one in fake.asked}.pop()

    assert sent() is None
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert sent() == "Bearer sk-other"
    monkeypatch.setenv("INLAY_API_KEY", "sk-own")
    assert sent() == "Bearer sk-own"
    told = Reply({"error": {"message": "Incorrect API key provided: sk-own"}}, 401)
    message = refused("401: .*INLAY_API_KEY", lambda asked: told, BadInput)
    assert "sk-own" not in message
    assert "***" in message
    monkeypatch.setenv("INLAY_API_KEY", "sk\nown")
    with pytest.raises(BadInput, match="INLAY_API_KEY holds characters that no key has"):
        ServerSubject("http://127.0.0.1:9")


def test_the_key_of_another_service_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    from inlay.evaluate.subjects.client import Client

    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert Client("http://example.org")._key is None
    assert Client("https://example.org")._key == "sk-other"
    monkeypatch.setenv("INLAY_API_KEY", "sk-own")
    assert Client("http://example.org")._key == "sk-own"


def test_connections_are_kept_and_requests_run_at_once() -> None:
    """Three requests wait for each other: were they sent one after the other, none would come back."""
    barrier = threading.Barrier(3, timeout=20)

    def together(body: dict[str, Any]) -> dict[str, Any]:
        barrier.wait()
        return infilled(body["input_prefix"], [("", 0.0)])

    with serving(llama(together)) as fake, open_server(fake.url) as subject:
        found = ask(subject, EXAMPLES)
    assert [answers[0].text for answers in found] == [example.prefix for example in EXAMPLES]
    assert fake.connections == 4  # that of the first questions, and one for each of three slots


def test_leaving_early_and_failing_leave_nothing_behind() -> None:
    release = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if body["input_prefix"] == EXAMPLES[0].prefix:
            return infilled("first", [("", 0.0)])
        release.wait(20)
        return infilled("late", [("", 0.0)])

    try:
        with serving(llama(answer)) as fake, open_server(fake.url, timeout=60.0) as subject:
            stream: Iterator[tuple[int, list[Answer]]] = subject.answers(EXAMPLES, "infill", 8, GREEDY)
            assert next(stream)[0] == 0
            before = set(threading.enumerate())
            assert any(thread.name.startswith("inlay-server") for thread in before)
            stream.close()  # type: ignore[attr-defined]
            for thread in before:
                if thread.name.startswith("inlay-server"):
                    thread.join(10)
                    assert not thread.is_alive()  # though the server has not answered
            assert ask(subject, EXAMPLES[:1])[0][0].text == "first"  # and it can be asked again
    finally:
        release.set()


def test_far_ends_are_cut_to_what_the_server_holds() -> None:
    prefix, suffix = "ä" * 5000 + "cursor", "after" + "ß" * 5000
    with serving(llama(lambda body: infilled("", [("", 0.0)]))) as fake, open_server(fake.url) as subject:
        ask(subject, [gap("e", prefix, suffix), gap("f", "short", suffix), gap("g", prefix, "short")])
        with pytest.raises(BadInput, match="max_tokens = 490 leaves no room in the server's context of 512"):
            list(subject.answers([gap("e")], "infill", 490, GREEDY))
        with open_server(fake.url, context_bytes=90) as small:
            ask(small, [gap("h", prefix, suffix)])
    room = 2 * (512 - 32 - 16)
    bodies = [(body["input_prefix"], body["input_suffix"]) for body in fake.posted("/infill")]
    small_body = bodies.pop()
    for before, after in bodies:
        assert room - 4 <= len((before + after).encode()) <= room
        assert prefix.endswith(before) or before == "short"
        assert suffix.startswith(after) or after == "short"
    both = next(pair for pair in bodies if "short" not in pair)
    assert len(both[1].encode()) == pytest.approx(room / 3, abs=2)
    assert small_body == ("ä" * 27 + "cursor", "after" + "ß" * 12)


def test_a_context_that_is_too_long_after_all_is_halved() -> None:
    def picky(body: dict[str, Any]) -> Any:
        if len(body["input_prefix"]) > 300:
            return Reply({"error": {"message": "request (700 tokens) exceeds the available context size (512)"}}, 400)
        return infilled(body["input_prefix"][-1:], [("", 0.0)])

    with serving(llama(picky)) as fake, open_server(fake.url) as subject:
        found = ask(subject, [gap("e", "x" * 4000 + "!"), gap("f", "y" * 100)])
        assert [answers[0].text for answers in found] == ["!", "y"]
        assert subject.identity["narrowed"] == 1
        assert len(fake.posted("/infill")) == 4
    never = Reply({"error": {"message": "maximum context length exceeded"}}, 400)
    refused("its context has no room for 32 tokens of answer", llama(lambda body: never))


def test_what_a_server_cannot_do_is_refused() -> None:
    with serving(openai(lambda body: "x")) as fake, open_server(fake.url) as subject:
        for decoding, message in (
            (Decoding(heal=True), "token healing needs the model's tokens"),
            (Decoding(infill_sampler=True), "infill_sampler is llama.cpp's"),
            (Decoding(temperature=0.2, top_k=4), "top_k is unknown"),
        ):
            with pytest.raises(BadInput, match=message):
                list(subject.answers(EXAMPLES, "completions", 8, decoding))
        with pytest.raises(BadInput, match="asked in completions, not in 'psm'"):
            list(subject.answers(EXAMPLES, "psm", 8, GREEDY))
        assert list(subject.losses(EXAMPLES, "completions", 8)) == []
        assert subject.tokenizer is None
        assert subject.gold_answer(EXAMPLES[0]) == Answer("gold", "eot", leaked=False)


def test_logprobs_are_left_out_where_they_are_refused() -> None:
    def complete(body: dict[str, Any]) -> Any:
        return Reply({"error": "logprobs are not supported"}, 400) if "logprobs" in body else "x"

    with serving(openai(complete)) as fake, open_server(fake.url) as subject:
        assert ask(subject, [gap("e")])[0][0].text == "x"
        assert ["logprobs" in body for body in fake.posted("/v1/completions")] == [True, False, False, False]


def keyed(fake: Fake, **options: Any) -> str | None:
    with open_server(fake.url, **options) as subject:
        return subject.key


def test_only_named_weights_are_cached() -> None:
    card = {"id": "m", "max_model_len": 512}

    def named(asked: Asked) -> Any:
        return {"data": [card]} if asked.path == "/v1/models" else openai(lambda body: "", INLAY)(asked)

    with serving(named) as fake:
        assert keyed(fake) is None
        card["weights_hash"] = "abc"
        first = keyed(fake)
        assert first is not None
        assert re.fullmatch(r"server-[0-9a-f]{32}", first)
        assert keyed(fake) == first
        others = [keyed(fake, family="inlay"), keyed(fake, context_bytes=100)]
        card["weights_hash"] = "abd"
        others.append(keyed(fake))
        card["max_model_len"] = 600
        others.append(keyed(fake))
        assert len({first, *others}) == 5


def test_real_llama_cpp_answers_as_our_engine(tmp_path: Path) -> None:
    """The same weights: as text with the family's sentinels in each order, and through /infill."""
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    model = opened(SHAPES["qwen3"][1], tiny_tokenizer())
    file = export_gguf(model, tmp_path / "model.gguf", "f32").path
    ours = LocalSubject(model)
    examples = [gap(str(at), prefix, suffix) for at, (prefix, suffix) in enumerate(
        [("def add(first, ", "    return first"), ("", "x = 1\n"), ('print(f"{index}: ', ""), ("naïve = ", "\r\n\t1")]
    )]  # fmt: skip
    ends = []

    def compare(answer: Answer, own: Answer) -> None:
        ends.append(own.stopped)
        if own.stopped == "sentinel":  # llama.cpp passes over a control token, or ends the text there
            assert answer.text.startswith(own.text.rstrip("\ufffd"))
            assert answer.leaked is not False or answer.stopped == "eot"
            return
        assert answer.text.rstrip("\ufffd") == own.text.rstrip("\ufffd")
        if own.stopped == "eot" and (own.tokens or 0) < 32:
            assert (answer.stopped, answer.tokens) == ("eot", own.tokens)
            assert answer.logprob is None or answer.logprob == pytest.approx(own.logprob, abs=1e-2)

    with LlamaServer(file, 128, threads=1) as running:
        address = running._address
        with open_server(address, family="inlay") as subject:
            assert (set(subject.orders), subject.sentinels_read) == ({"psm", "spm", "spm_v2"}, True)
            for order in subject.orders:
                expected = dict(ours.answers(examples, order, 32, GREEDY))
                for index, (answer,) in enumerate(ask(subject, examples, order)):
                    compare(answer, expected[index][0])
        with open_server(address) as subject:
            assert subject.orders == ("infill",)
            for example, (answer,) in zip(examples, ask(subject, examples), strict=True):
                request = {"input_prefix": example.prefix, "input_suffix": example.suffix, "n_predict": 32}
                # It puts the form of a repository before the gap, as much as it finds room for.
                prompt = running.post("/infill", request)["prompt"]
                ids = running.post("/tokenize", {"content": prompt, "parse_special": True})["tokens"]
                compare(answer, Answer.of(Engine(model).generate([ids], max_tokens=32)[0], frozenset()))
        with pytest.raises(BadInput, match="takes no notice of 'suffix'"):
            ServerSubject(address, api="completions")
        with pytest.raises(BadInput, match="format family 'starcoder2' does not fit"):
            ServerSubject(address, family="starcoder2")
    assert "eot" in ends or "limit" in ends
