"""Real llama.cpp with a GGUF file, as a peer to compare with: its server in a child process, spoken to on loopback.

The package `xllamacpp` runs the server inside the calling process, where it takes over Ctrl-C and where a failed
assertion ends everything; hence the child. It computes in fp32 as far as the file's number format lets it: caches in
fp32, no flash attention, no GPU. The child is this module run as a program; it ends when its standard input closes.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from inlay.config import InlayError
from inlay.python_process import end_with_parent, python_command, python_environment

READY = "inlay-llama-server "
START_SECONDS = 300.0
REPLY_SECONDS = 300.0
LOG_TAIL = 300


def is_installed() -> bool:
    """Whether the package that holds llama.cpp is there."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaServer:
    """A context manager: llama.cpp with one model."""

    def __init__(self, file: Path, context: int, batch: int | None = None, threads: int | None = None) -> None:
        """`context`: positions it may hold; `batch`: llama.cpp's `-b`, by which it budgets the parts of an infilling
        prompt."""
        self._options = {
            "file": str(file),
            "context": context,
            "batch": batch or context,
            "threads": threads or max(1, (os.cpu_count() or 2) // 2),
        }
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None
        self._address = ""

    def __enter__(self) -> "LlamaServer":
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            python_command("-m", "inlay.export.llama_server", json.dumps(self._options)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=python_environment(),
        )
        try:
            self._address = self._wait(self._process)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()  # pyrefly: ignore (it is a pipe)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # pyrefly: ignore
        if self._log is not None:
            self._log.close()

    def post(self, path: str, data: dict[str, Any]) -> Any:
        """The answer to a request. Raises InlayError in one line when llama.cpp refuses it or has died."""
        request = urllib.request.Request(
            self._address + path, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        # A proxy of the environment has no business on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=REPLY_SECONDS) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            raise InlayError(f"llama.cpp refused {path}: {error.read()[:200].decode(errors='replace')}") from None
        except OSError as error:
            raise InlayError(f"llama.cpp did not answer {path} ({error}): {self._last_words()}") from None

    def complete(self, prompt: Sequence[int], tokens: int, top: int) -> tuple[list[int], list[dict[int, float]]]:
        """Greedy: the ids, the one that ended it included, and for each the log-probabilities of the `top` likeliest.

        `prompt`: ids. A table is empty where llama.cpp reports none: at a token that leaves a character unfinished.
        """
        reply = self._generate(prompt, tokens, top)
        ids = [int(token) for token in reply["tokens"]]
        tables = _tables(ids, reply)
        if reply["stop_type"] == "eos":
            # Nor is one reported for the token that ends a text. With that token forbidden it is: the table shows the
            # model's own log-probabilities, from before any such rule.
            other = self._generate([*prompt, *ids[:-1]], 1, top, ignore_eos=True)
            tables[-1] = _tables(other["tokens"], other)[0]
        return ids, tables

    def encode(self, text: str) -> list[int]:
        """Ids of a text as llama.cpp encodes it; control tokens in it are text."""
        return self.post("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]

    def builds(self, prompt: Sequence[int], prefix: str, suffix: str, rewinds: bool = True) -> bool:
        """Whether `/infill` sends exactly these ids to the model for a prefix and a suffix.

        They are put into the cache first; an equal prompt is as long and takes all but its last token from there. The
        state of a convolution cannot be cut back like that; without `rewinds`, length and text must be equal.
        """
        self.post("/completion", {"prompt": list(prompt), "n_predict": 0, "cache_prompt": True})
        request = {"input_prefix": prefix, "input_suffix": suffix, "n_predict": 1, "cache_prompt": True}
        reply = self.post("/infill", request)
        if reply["tokens_evaluated"] != len(prompt):
            return False
        if rewinds:
            return reply["timings"]["cache_n"] == len(prompt) - 1
        return reply["prompt"] == self.post("/detokenize", {"tokens": list(prompt)})["content"]

    def _generate(self, prompt: Sequence[int], tokens: int, top: int, **options: bool) -> dict[str, Any]:
        request = {
            "prompt": list(prompt),
            "n_predict": tokens,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "n_probs": top,
            "cache_prompt": False,
            "return_tokens": True,
        }
        return self.post("/completion", {**request, **options})

    def _wait(self, process: "subprocess.Popen[str]") -> str:
        # A child that hangs is ended; closing its output ends the loop below.
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        try:
            for line in process.stdout or ():
                if line.startswith(READY):
                    return line.removeprefix(READY).strip()
        finally:
            timer.cancel()
        raise InlayError(f"llama.cpp could not load the file: {self._last_words()}")

    def _last_words(self) -> str:
        """The end of what it logged, by preference its errors."""
        if self._log is None:
            return "it left no message"
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "assert" in line.lower()]
        return " / ".join((errors or lines)[-3:])[-LOG_TAIL:] or "it left no message"


def _tables(ids: Sequence[int], reply: dict[str, Any]) -> list[dict[int, float]]:
    """The reported table of each id, in order."""
    places = iter(reply.get("completion_probabilities", []))
    place, found = next(places, None), []
    for token in ids:
        reported = place is not None and place["id"] == token
        items = place["top_logprobs"] if place is not None and reported else []
        found.append({int(item["id"]): float(item["logprob"]) for item in items})
        place = next(places, None) if reported else place
    return found


def serve(options: dict[str, Any]) -> None:
    """Runs the server in this process until standard input closes. Its address is printed once it can answer."""
    end_with_parent()
    import xllamacpp as package

    xllamacpp: Any = package  # it has no types
    params = xllamacpp.CommonParams()
    params.model.path = options["file"]
    params.port = 0
    params.n_ctx = options["context"]
    params.n_batch = params.n_ubatch = options["batch"]
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.n_threads_http = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
    params.fit_params = False
    server = xllamacpp.Server(params)
    print(f"{READY}{server.listening_address}", flush=True)
    sys.stdin.read()
    # Its own shutdown waits for connections and prints tables; there is nothing to save.
    os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
