"""HTTP servers on this machine that behave as a test tells them, like llama.cpp or in OpenAI's style."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLOSE = "close the connection"
"""Instead of a reply."""


@dataclass
class Asked:
    """A request that came in."""

    method: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Reply:
    """What is sent back; a dictionary goes out as JSON."""

    content: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fake:
    """A running server: what it was asked, over how many connections."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def posted(self, path: str) -> list[dict[str, Any]]:
        return [one.body for one in self.asked if (one.method, one.path) == ("POST", path)]


@contextmanager
def serving(answer: Callable[[Asked], Any]) -> Iterator[Fake]:
    """`answer` gives a Reply, CLOSE, or plain content for status 200."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with lock:
                fake.connections += 1

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            asked = Asked(self.command, self.path, body, dict(self.headers.items()))
            with lock:
                fake.asked.append(asked)
            reply = answer(asked)
            if reply is CLOSE:
                self.close_connection = True
                return
            reply = reply if isinstance(reply, Reply) else Reply(reply)
            content = reply.content
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            # Who asked may be gone.
            with suppress(OSError):
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False  # a connection that is kept open would be waited for
    fake = Fake(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


MODELS = {"object": "list", "data": [{"id": "acme/coder-1b", "object": "model", "max_model_len": 2048}]}
PROPS = {
    "default_generation_settings": {"n_ctx": 512},
    "total_slots": 3,
    "model_path": "/models/coder.gguf",
    "build_info": "b9999",
}
LLAMA_MODELS = {"data": [{"id": "/models/coder.gguf", "created": 1, "meta": {"n_params": 1000, "size": 4000}}]}


def llama(infill: Callable[[dict[str, Any]], Any]) -> Callable[[Asked], Any]:
    """A server like llama.cpp's, whose /infill is answered by a function of the request's body."""

    def answer(asked: Asked) -> Any:
        if asked.path == "/props":
            return PROPS
        if asked.path == "/v1/models":
            return LLAMA_MODELS
        return infill(asked.body) if asked.path == "/infill" else Reply({"error": {"message": "File Not Found"}}, 404)

    return answer


def infilled(text: str, tokens: list[tuple[str, float]], stop: str = "eos") -> dict[str, Any]:
    """llama.cpp's answer; `tokens` are their texts and log-probabilities, the terminator's text empty."""
    return {
        "content": text,
        "tokens": list(range(len(tokens))),
        "tokens_predicted": len(tokens),
        "stop_type": stop,
        "stopping_word": "",
        "completion_probabilities": [
            {"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in tokens
        ],
    }


def openai(complete: Callable[[dict[str, Any]], Any], specials: tuple[str, ...] = ()) -> Callable[[Asked], Any]:
    """A server in OpenAI's style; each of `specials` is one token, any other character too. `complete` gives a text or
    a Reply. It takes notice of the suffix."""

    def count(text: str) -> int:
        for one in specials:
            text = text.replace(one, "\0")
        return len(text)

    def answer(asked: Asked) -> Any:
        if asked.path == "/v1/models":
            return MODELS
        if asked.path != "/v1/completions":
            return Reply({"error": {"message": "not found", "type": "invalid_request_error"}}, 404)
        found = complete(asked.body)
        if not isinstance(found, str):
            return found
        usage = {"prompt_tokens": count(asked.body["prompt"]) + count(asked.body.get("suffix") or ""),
                 "completion_tokens": len(found) + 1}  # fmt: skip
        return {"choices": [{"index": 0, "text": found, "finish_reason": "stop", "logprobs": None}], "usage": usage}

    return answer
