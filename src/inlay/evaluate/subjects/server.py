"""A model behind a server: llama.cpp's `/infill`, or completions in OpenAI's style, as editors ask them.

It decides which of the two a server speaks (`/props` is llama.cpp's, `/v1/models` the others'), what it is sent and
when it is believed. In OpenAI's style the gap is sent as `prompt` and `suffix`, or, with a format family, as one text
with the family's sentinels. Before any answer counts it is made sure, where the server counts its prompt tokens, that
it reads the suffix at all (some, llama.cpp among them, take the field and pass over it) and that each sentinel is one
token of its tokenizer. It refuses a server that fails either, and token healing, which needs the model's tokens.

The terminator is part of a server's token budget: a text of exactly the budget reads as cut off. Losses are unknown.
Answers are cached only where the server names its weights by a hash; a name or a size does not tell two trainings
apart.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import PurePosixPath
from time import monotonic
from typing import Any, Literal, cast

import xxhash

from inlay.config import BadInput, InlayError
from inlay.evaluate.answer import Answer
from inlay.evaluate.subject import Decoding, Subject
from inlay.evaluate.subjects.client import Client, Refused, address_of
from inlay.evaluate.subjects.replies import read_completion, read_infill
from inlay.evaluate.subjects.request import fitted, orders_of, prompt_text, sentinel_in, stops_of
from inlay.evaluate.task import Example
from inlay.fim.draws import Draws
from inlay.fim.family import Order, load_family

Api = Literal["auto", "completions", "infill"]

BYTES_PER_TOKEN = 2
"""Context is filled up to so many bytes a token; code has 3 to 4, so that the prompt nearly always fits. Where it does
not, the room is halved for that example until the server takes it."""
ROOM_UNKNOWN = 6000
"""Bytes of context where a server does not say how much it holds."""
EXTRA_TOKENS = 16
"""Sentinels, and what a server adds."""
SMALLEST_ROOM = 64
_HASHES = ("weights_hash", "model_sha", "digest", "sha256")
_REPEATED = 3
_MANY = 1 << 40


class ServerSubject(Subject):
    """A server at an address. Make one, then `close` it."""

    def __init__(
        self,
        url: str,
        *,
        api: Api = "auto",
        family: str | None = None,
        model: str | None = None,
        context_bytes: int | None = None,
        concurrency: int | None = None,
        timeout: float = 120.0,
        attempts: int = 6,
        pause: float = 0.5,
    ) -> None:
        """Asks the server who it is.

        `url`: where the server is (`http://127.0.0.1:8080`, with or without `/v1`), or a whole endpoint that ends in
        `/completions` or `/infill`. `api`: "auto" finds out. `family`: send prompts as text with this format's
        sentinels. `model`: its name there, where it serves several. `context_bytes`: room for prefix, suffix and other
        files; None takes two bytes for each token that the server says it holds. `concurrency`: requests at once;
        None takes llama.cpp's slots, or 4. The rest as `Client`. Raises BadInput and InlayError in one line.
        """
        root, self._endpoint, found_api = _endpoint(url)
        self._client = Client(root, timeout=timeout, attempts=attempts, pause=pause)
        self._family = None if family is None else load_family(family)
        self._asked_bytes = context_bytes
        self._narrowed = 0
        self._lock = threading.Lock()
        self._logprobs = True
        self.suffix_read: bool | None = None
        self.sentinels_read: bool | None = None
        if context_bytes is not None and context_bytes < SMALLEST_ROOM:
            raise BadInput(f"context_bytes = {context_bytes}: give at least {SMALLEST_ROOM}")
        try:
            self._props, listed = self._introduction()
            self.api = self._choose(api, found_api, bool(listed))
            self._model = self._choose_model(model, listed)
            self._card = next((card for card in listed if card.get("id") == self._model), {})
            if self._family is not None and self.api == "completions":
                self.orders: tuple[str, ...] = orders_of(self._family)
                self.sentinels_read = self._check_sentinels()
            else:
                self.orders = (self.api,)
                if self.api == "completions":
                    self.suffix_read = self._check_suffix()
        except BaseException:
            self.close()
            raise
        slots = self._props.get("total_slots")
        self._concurrency = concurrency or (slots if isinstance(slots, int) and slots > 0 else 4)

    @property
    def identity(self) -> dict[str, Any]:
        context = self._context_tokens
        said = {"build": self._props.get("build_info"), "weights": self._props.get("model_ftype"), "context": context}
        meta = self._card.get("meta")
        sizes = {key: meta[key] for key in ("n_params", "size") if key in meta} if isinstance(meta, dict) else {}
        return {
            "name": _short_name(self._model),
            "kind": "server",
            "step": None,
            "weights_hash": self._weights_hash,
            "url": self._client.base,
            "api": self.api,
            "model": self._model,
            "format": None if self._family is None else self._family.kind,
            "says": {key: value for key, value in {**said, **sizes}.items() if value is not None},
            "suffix_read": self.suffix_read,
            "sentinels_read": self.sentinels_read,
            "context": f"{self._asked_bytes} bytes" if self._asked_bytes else self._default_context(context),
            "narrowed": self._narrowed,
        }

    @property
    def key(self) -> str | None:
        if self._weights_hash is None:
            return None
        family = None if self._family is None else self._family.kind
        said = (self._client.base, self._endpoint, self.api, self._model, self._weights_hash, family, self._asked_bytes)
        return f"server-{xxhash.xxh3_128_hexdigest(repr((said, self._context_tokens)).encode())}"

    def answers(
        self, examples: Sequence[Example], order: str, max_tokens: int, decoding: Decoding
    ) -> Iterator[tuple[int, list[Answer]]]:
        if order not in self.orders:
            raise BadInput(f"the server is asked in {', '.join(self.orders)}, not in '{order}'")
        if decoding.heal:
            raise BadInput("heal: token healing needs the model's tokens, which a server keeps to itself; leave it out")
        if decoding.infill_sampler and self.api != "infill":
            raise BadInput("infill_sampler is llama.cpp's: it needs --api infill")
        if decoding.top_k is not None and self.api != "infill":
            raise BadInput("top_k is unknown to completions in OpenAI's style: leave it out, or ask with --api infill")
        room = self._room(max_tokens)
        found: list[list[Answer | None]] = [[None] * decoding.samples for _ in examples]
        tasks = iter((index, sample) for index in range(len(examples)) for sample in range(decoding.samples))
        pool = ThreadPoolExecutor(self._concurrency, "inlay-server")
        pending: dict[Future[Answer], tuple[int, int]] = {}
        try:
            while True:
                for index, sample in islice(tasks, 2 * self._concurrency - len(pending)):
                    future = pool.submit(self._answer, examples[index], order, max_tokens, decoding, sample, room)
                    pending[future] = index, sample
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    index, sample = pending.pop(future)
                    found[index][sample] = future.result()
                    if all(answer is not None for answer in found[index]):
                        yield index, cast(list[Answer], found[index])
                        found[index] = []
        finally:
            # Whatever ended this, nobody waits for the answers that are still to come.
            pool.shutdown(wait=False, cancel_futures=True)
            if pending:
                self._client.drop()

    def gold_trouble(self, example: Example, order: str, max_tokens: int) -> str | None:
        """A control string of the family in the example's text: a server takes it for the sentinel itself."""
        found = None if self._family is None else sentinel_in(self._family, example)
        return None if found is None else f"its text holds '{found}'"

    def close(self) -> None:
        self._client.close()

    def _answer(
        self, example: Example, order: str, max_tokens: int, decoding: Decoding, sample: int, room: int
    ) -> Answer:
        narrowed = False
        while True:
            path, body = self._request(example, order, max_tokens, decoding, sample, room)
            started = monotonic()
            try:
                reply = self._client.post(path, body)
                break
            except Refused as error:
                if not _too_long(error):
                    raise self._explained(error) from None
                if room < 2 * SMALLEST_ROOM:
                    raise InlayError(f"{error}: its context has no room for {max_tokens} tokens of answer") from None
                room //= 2
                narrowed = True
        seconds = monotonic() - started
        if narrowed:
            with self._lock:
                self._narrowed += 1
        stops = None if self._family is None else stops_of(self._family)
        read = read_infill if self.api == "infill" else read_completion
        return read(reply, stops, seconds, f"{self._client.base}{path}")

    def _request(
        self, example: Example, order: str, max_tokens: int, decoding: Decoding, sample: int, room: int
    ) -> tuple[str, dict[str, Any]]:
        takes_files = self.api == "infill" or (self._family is not None and self._family.repository is not None)
        prefix, suffix, files = fitted(example, room, context=takes_files)
        seed = Draws(decoding.seed, "server", example.id, sample).integer(0, 1 << 31)
        if self.api == "infill":
            # In the order of our own sampling: top_k, temperature, top_p.
            names = ("top_k", "temperature", "top_p")
            samplers = [name for name in names if name == "temperature" or getattr(decoding, name) is not None]
            if decoding.infill_sampler:
                samplers = [name for name in samplers if name != "temperature" or decoding.temperature > 0.0]
                samplers.append("infill")
            body: dict[str, Any] = {
                "input_prefix": prefix,
                "input_suffix": suffix,
                "n_predict": max_tokens,
                "temperature": decoding.temperature,
                "samplers": samplers,
                "seed": seed,
                "n_probs": 1,
                "return_tokens": True,
                # An answer must not depend on what was asked before.
                "cache_prompt": False,
                "stream": False,
            }
            body |= {} if decoding.top_k is None else {"top_k": decoding.top_k}
            if files:
                body["input_extra"] = [{"filename": file.path, "text": file.text} for file in reversed(files)]
        else:
            body = self._completion(max_tokens, decoding.temperature) | {"seed": seed}
            if self._family is None:
                body |= {"prompt": prefix, "suffix": suffix}
            else:
                text = prompt_text(self._family, cast(Order, order), prefix, suffix, example.repo, example.path, files)
                body |= {"prompt": text, "stop": list(stops_of(self._family))}
        body |= {} if decoding.top_p is None else {"top_p": decoding.top_p}
        if self._model is not None:
            body["model"] = self._model
        return self._endpoint or ("/infill" if self.api == "infill" else "/v1/completions"), body

    def _completion(self, max_tokens: int, temperature: float = 0.0) -> dict[str, Any]:
        body: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "stream": False}
        return body | ({"logprobs": 1} if self._logprobs else {}) | ({"model": self._model} if self._model else {})

    def _probe(self, prompt: str, suffix: str | None) -> int | None:
        """Prompt tokens that the server counts, `_MANY` for more than it holds; None where it does not say."""
        path = self._endpoint or "/v1/completions"
        while True:
            body = self._completion(1) | {"prompt": prompt} | ({} if suffix is None else {"suffix": suffix})
            try:
                reply = self._client.post(path, body)
            except Refused as error:
                if self._logprobs and "logprob" in error.reason.lower():
                    self._logprobs = False
                    continue
                if _too_long(error):
                    return _MANY
                raise self._explained(error) from None
            read_completion(reply, None, 0.0, f"{self._client.base}{path}")
            usage = reply.get("usage")
            count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
            return count if isinstance(count, int) and not isinstance(count, bool) else None

    def _introduction(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What llama.cpp says of itself, and the models that are served; empty where there is neither."""
        try:
            return _object(self._client.get("/props")), _models(self._client.get("/v1/models"))
        except Refused as error:
            raise self._explained(error) from None

    def _check_suffix(self) -> bool | None:
        short, long = self._probe("def first():\n", "\n"), self._probe("def first():\n", "\n    return second\n" * 8)
        if short is None or long is None:
            return None
        if short == long:
            raise BadInput(
                f"{self._client.base} takes no notice of 'suffix' (its prompt has {long} tokens with any): name the"
                " model's format with --family NAME, or ask with --api infill"
            )
        return True

    def _check_sentinels(self) -> bool | None:
        assert self._family is not None
        strings = [one for one in (self._family.prefix, self._family.suffix, self._family.middle) if one is not None]
        # Nothing is between them, so a text that is not special would be many tokens, or merge.
        once, often = self._probe("".join(strings), None), self._probe("".join(strings) * _REPEATED, None)
        if once is None or often is None:
            return None
        if often - once != len(strings) * (_REPEATED - 1):
            raise BadInput(
                f"format family '{self._family.kind}' does not fit the model at {self._client.base}: its tokenizer does"
                f" not read {', '.join(strings)} as one token each; name the model's own with --family NAME"
            )
        return True

    def _explained(self, error: Refused) -> InlayError:
        """What a refusal means for somebody who evaluates."""
        words = error.reason.lower()
        if error.status in (401, 403):
            return BadInput(f"{error}; put the key into the environment variable INLAY_API_KEY")
        if error.status in (404, 405):
            what = (
                f"has no model '{self._model}'" if "model" in words and self._model else f"has no {self.api} endpoint"
            )
            return BadInput(f"{self._client.base} {what} ({error}); see --model, --api and the address")
        if "suffix" in words and self._family is None and self.api == "completions":
            return BadInput(f"{error}; name the model's format with --family NAME, so that the prompt needs no suffix")
        if "infill" in words:
            return BadInput(f"{error}; a model without infilling tokens cannot be asked so")
        return error

    def _choose(self, asked: Api, found: Api, listed: bool) -> Literal["completions", "infill"]:
        if found != "auto" and asked not in ("auto", found):
            raise BadInput(f"the address ends in /{found}, so --api {asked} does not fit it")
        for chosen in (asked, found):
            if chosen != "auto":
                return chosen
        llama = "default_generation_settings" in self._props
        if llama and self._family is None:
            return "infill"
        if llama or listed:
            return "completions"
        raise BadInput(
            f"{self._client.base} answers neither /props (llama.cpp) nor /v1/models (OpenAI's style): is it a"
            " completion server? Say --api completions or --api infill to ask it all the same"
        )

    def _choose_model(self, asked: str | None, listed: list[dict[str, Any]]) -> str | None:
        names = [str(card["id"]) for card in listed]
        if asked is not None:
            if names and asked not in names:
                raise BadInput(f"{self._client.base} has no model '{asked}'; it has {', '.join(names[:8])}")
            return asked
        if len(names) > 1:
            raise BadInput(f"{self._client.base} serves {len(names)} models: say which with --model, one of"
                           f" {', '.join(names[:8])}")  # fmt: skip
        return names[0] if names else None

    @property
    def _weights_hash(self) -> str | None:
        for said in (self._card, self._props):
            for name in _HASHES:
                if isinstance(said.get(name), str) and said[name]:
                    return str(said[name])
        return None

    @property
    def _context_tokens(self) -> int | None:
        settings = self._props.get("default_generation_settings")
        said = settings.get("n_ctx") if isinstance(settings, dict) else self._card.get("max_model_len")
        return said if isinstance(said, int) and said > 0 else None

    def _default_context(self, tokens: int | None) -> str:
        return f"{ROOM_UNKNOWN} bytes" if tokens is None else f"{BYTES_PER_TOKEN} bytes a token of {tokens}"

    def _room(self, max_tokens: int) -> int:
        """Bytes of context. Raises BadInput when the budget leaves none."""
        tokens = self._context_tokens
        if self._asked_bytes is not None:
            return self._asked_bytes
        if tokens is None:
            return ROOM_UNKNOWN
        room = BYTES_PER_TOKEN * (tokens - max_tokens - EXTRA_TOKENS)
        if room < SMALLEST_ROOM:
            raise BadInput(f"max_tokens = {max_tokens} leaves no room in the server's context of {tokens}: lower it")
        return room


def _endpoint(url: str) -> tuple[str, str | None, Api]:
    """The server's root, the path of an endpoint that was given whole, and the API that it speaks."""
    parts = address_of(url)
    path = parts.path.rstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    if path.endswith("/chat/completions"):
        raise BadInput(f"'{root}{path}' is for chats, which cannot be asked to fill a gap: give its /v1/completions")
    for ending in ("/v1/completions", "/completions", "/infill"):
        if path.endswith(ending):
            return root + path.removesuffix(ending), ending, cast(Api, ending.rpartition("/")[2])
    return root + path.removesuffix("/v1"), None, "auto"


def _models(reply: Any) -> list[dict[str, Any]]:
    data = _object(reply).get("data")
    cards = data if isinstance(data, list) else []
    return [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]


def _object(reply: Any) -> dict[str, Any]:
    return reply if isinstance(reply, dict) else {}


def _short_name(model: str | None) -> str:
    name = PurePosixPath((model or "server").replace("\\", "/")).name
    return name.removesuffix(".gguf") or "server"


def _too_long(error: Refused) -> bool:
    words = error.reason.lower()
    return error.status in (400, 413, 422) and "context" in words and any(one in words for one in ("length", "size"))
