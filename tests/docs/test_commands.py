"""Every command that a page, a help text or a YAML comment tells is run, as it stands but for paths and sizes.

What is replaced is in `PATHS` and `smaller`, and nothing else: a new command runs as it is written, or fails here. What
cannot run in a test is in `NOT_RUN` with the reason, and is parsed and composed all the same.
"""

import ast
import gzip
import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tests.docs.commands import PAGES, ROOT, VERBS, YAML, Command, commands, overrides_in_comments

from inlay.cli.app import build_app
from inlay.cli.main import main
from inlay.cli.overrides import take
from inlay.config import validate
from inlay.config.compose import apply_overrides, compose

ALL = commands()
NAMES = "|".join(VERBS)
OURS = [command for command in ALL if command.inlay is not None]
PATHS = {
    r"PATH/TO/YOUR/CODE|path/to/code|CODE": "code",
    r"PATH/TO/HF-FOLDER|path/to/hf-folder|PATH/TO/Qwen[\w.-]+|FOLDER|exports/mine": "made/hf",
    r"STORE|stores/(mine|qwen|study)|code": "stores/mine",
    r"stores/english|english": "stores/english",
    r"(RUN|DIR|runs/(mine|demo|other|base|muon|mixed))((?:/config\.yaml)?)": r"runs/mine\3",
    r"runs/base/checkpoints/step-400": "runs/mine/checkpoints/step-2",
    r"runs/sweep-lr-20260101": "runs",
    r"code/tokenizer": "stores/mine/tokenizer",
    r"FILE(\.py)?": "code/one/draws.py",
    r"LINE:COLUMN|LINE:COL": "3:1",
    r"F|FILE\.jsonl\.gz|HumanEval-SingleLineInfilling\.jsonl\.gz": "problems.jsonl.gz",
    r"FILE\.jsonl|answers\.jsonl|samples\.jsonl": "answers.jsonl",
    r"safim/": "safim.jsonl",
    r"path/to/marked": "marked",
    r"T": "humaneval_infilling",
}
"""What stands for something of the reader's, and what a test has in its place. `key=` before it stays."""
NOT_RUN = {
    r"torchrun .*": "starts processes: tests/train/test_parallel.py does",
    r"inlay train.* parallel\.\w+=.*": "tests/train/test_parallel.py does",
    r"inlay evaluate http://.*": "needs a server: tests/evaluate/subjects/test_server.py has one",
    r"inlay sweep (?!.*--plan).*": "trains for minutes: tests/train/test_sweep.py runs smaller ones",
    r"inlay prepare.* source=(demo|english).*": "reads all that is installed here: tests/text have both sources",
    r"inlay demo.*": "the whole way in minutes: `.ci/run` and tests/cli/test_demo.py",
    r"inlay (prepare|train|evaluate|export|sweep|report|complete|inspect)": "the name of the verb, not a command",
    r"inlay train resume=RUN data\.sources\.english\.path=STORE": "needs a mixture: tests/train/test_mixture.py",
    r"python -m inlay": "the name of the program, not a command",
    r"inlay inspect plan data=mixture \.\.\. .*": "shows a refusal: tests/data/test_quota.py has it",
    r"inlay export .* --check.*": "compares with peers: tests/export/test_check.py",
    r"inlay train.* callbacks\.(tensorboard|wandb)=.*": "needs inlay[track]: tests/train/test_callbacks.py",
}
OTHER = {
    r"git clone <this repository> inlay && cd inlay": lambda words: True,
    r"make demo DEMO_ARGS=.*": lambda words: (
        set(" ".join(words[2:]).removeprefix("DEMO_ARGS=").strip('"').split())
        & {"--new", "--resume", "--minutes", "--out", "--corpus"}
    ),
    r"make [\w-]+": lambda words: re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE),
    r"(python3? )-m (benchmarks|experiments)[\w.]*.*": lambda words: module_of(words[2]),
    r"python3? docs/\w+\.py.*": lambda words: (ROOT / words[1]).is_file(),
    r"pip install '?inlay\[(track|search)\]'?": lambda words: extra(re.findall(r"\[(\w+)\]", words[2])[0]),
    r"pip install transformers xllamacpp": lambda words: True,
    r"sbatch .*": lambda words: any((ROOT / word).is_file() for word in words[1:]),
    r"tensorboard --logdir runs|wandb sync runs/NAME/wandb/offline-run-\*": lambda words: True,
}
"""Programs that are not `inlay`: what of ours they name is there."""


def module_of(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def extra(name: str) -> bool:
    return f"\n{name} = [" in (ROOT / "pyproject.toml").read_text()


def line_of(command: Command) -> str:
    """The command without a path before the program and without its comment."""
    return " ".join(command.words).removeprefix("$ ").removeprefix(".venv/bin/")


def name_of(command: Command) -> str:
    return f"{command.where}: {' '.join(command.words)}"[:110]


def reason(command: Command) -> str | None:
    line = line_of(command)
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, line)), None)


def words_of(command: Command) -> list[str]:
    """What `inlay` gets: paths replaced, optional parts (`[--flag VALUE]`) left out."""
    text = re.sub(r"\s*\[--[^]]*\]", "", " ".join(map(_guarded, command.inlay or [])))
    words = [word.replace("\0", " ") for word in text.split()]
    return [_replaced(word) for word in words if word != "..."] + (
        ["data.path=stores/mine"] if "..." in words and not any(word.startswith("data") for word in words) else []
    )


def _guarded(word: str) -> str:
    return word.replace(" ", "\0")


def _replaced(word: str) -> str:
    key, equals, value = word.rpartition("=") if not word.startswith("-") else ("", "", word)
    if key and key.rpartition(".")[2] not in ("path", "out", "resume", "transfer", "start_from"):
        return word
    for pattern, by in PATHS.items():
        if re.fullmatch(pattern, value):
            return key + equals + re.fullmatch(pattern, value).expand(by)  # type: ignore[union-attr]
    return word


def smaller(words: list[str], fresh: str) -> list[str]:
    """The same command on a few tiny rows, writing into a folder of its own."""
    verb = words[0]
    if verb == "train" and any(word.startswith("resume=") for word in words):
        shutil.copytree("runs/stopped", fresh)
        return [re.sub(r"^resume=.*", f"resume={fresh}", word) for word in words]
    found = [re.sub(r"^out=.*", f"out={fresh}", word) for word in words]
    if "--out" in found:
        found[found.index("--out") + 1] = fresh
    if verb == "train":
        found = [word for word in found if not re.match(r"train\.(steps|tokens|minutes)=", word)]
        small = not any(word.startswith("--config") or word.endswith("-nano") for word in words)
        found += ["model=pico"] * (small and not any(word.startswith("start_from=") for word in words))
        found = [word for word in found if not (small and word.startswith("model=") and word != "model=pico")]
        limits = [
            "train.minutes=null",
            "train.tokens=null",
            "train.steps=2",
            "train.sequence_length=256",
            "train.rows=2",
        ]
        found += [*limits, "train.compile=false", "callbacks.validation.rows=2", "callbacks.samples.gaps=2"]
        found += ["data.workers=0", "callbacks.guard=null"]
        found += [f"out={fresh}"] * (not any(word.startswith("out=") for word in found))
    if verb == "evaluate":
        found = [re.sub(r"(decoding\.samples|categories\.word)=.*", r"\1=2", word) for word in found]
        found += ["--limit", "1", "--allow-unsafe"]
        found += [f"out={fresh}"] * ("--completions" in found)
    if verb == "prepare" and "tokenizer=file" not in found:
        found += ["tokenizer.vocab_size=400"]
    return found


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with code, a store, a run of two steps, an export, and a benchmark's files."""
    home = tmp_path_factory.mktemp("reader")
    for name, package in (("one", "fim"), ("two", "config"), ("three", "text"), ("four", "data")):
        (home / "code" / name).mkdir(parents=True)
        for path in sorted((ROOT / "src" / "inlay" / package).glob("*.py"))[:6]:
            if not re.search(r"<.?fim|PRE>|CURSOR", path.read_text()):  # would be read as a file with a marked gap
                shutil.copy(path, home / "code" / name)
    for package in ("infer", "evaluate", "cli", "export"):
        (home / "prose" / package).mkdir(parents=True)
        for path in sorted((ROOT / "src" / "inlay" / package).glob("*.py"))[:3]:
            shutil.copy(path, home / "prose" / package)
    (home / "src").symlink_to(ROOT / "src")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for words in (
            "prepare source=folder source.path=code out=stores/mine tokenizer.vocab_size=400 syntax.enabled=false",
            "train data.path=stores/mine train.steps=4 train.sequence_length=256 train.rows=2 model=pico"
            " train.compile=false callbacks.validation.rows=2 callbacks.samples.gaps=2 data.workers=0"
            " callbacks.guard=null callbacks.checkpoints.every_steps=2 out=runs/mine",
            "prepare source=folder source.path=prose out=stores/english tokenizer=file syntax.enabled=false"
            " tokenizer.path=stores/mine/tokenizer",
            "export runs/mine --to hf --out made/hf",
        ):
            assert main(words.split()) == 0, words
    shutil.copytree(home / "runs" / "mine", home / "runs" / "stopped")
    shutil.rmtree(home / "runs" / "stopped" / "checkpoints" / "step-4")
    sample = next((ROOT / "src" / "inlay" / "evaluate" / "samples").rglob("humaneval_infilling*"))
    text = gzip.decompress(sample.read_bytes()).decode() if sample.suffix == ".gz" else sample.read_text()
    (home / "problems.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    ids = [json.loads(line)["task_id"] for line in text.splitlines() if line.strip()]
    (home / "answers.jsonl").write_text("".join(json.dumps({"task_id": one, "completion": "x"}) + "\n" for one in ids))
    safim = next((ROOT / "src" / "inlay" / "evaluate" / "samples").rglob("safim*"))
    shutil.copytree(safim.parent / "marked", home / "marked")
    shutil.copy(safim, home / "safim.jsonl")
    return home


def runs() -> list[object]:
    """Commands to run; of the pages below docs/ those that train or evaluate are the slow ones."""
    found: list[object] = []
    for command in OURS:
        if reason(command) is None:
            slow = command.where.startswith("docs/") and (command.inlay or [""])[0] in ("train", "evaluate", "sweep")
            found.append(pytest.param(command, marks=[pytest.mark.slow] * slow, id=name_of(command)))
    return found


@pytest.mark.parametrize("command", runs())
def test_it_runs(
    command: Command, world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(world)
    words = smaller(words_of(command), str(tmp_path / "fresh"))
    status = main(words)
    out, err = capfd.readouterr()
    assert status == 0, (words, err)
    assert out or words[0] == "complete", words  # two steps teach no model to insert anything


@pytest.mark.parametrize("command", [one for one in OURS if reason(one) is not None], ids=name_of)
def test_what_cannot_run_is_read_and_composed(command: Command) -> None:
    words = words_of(command)
    if not words:
        assert command.text == "python -m inlay"
    elif len(words) > 1:
        read(words)
    else:
        assert words[0] in {verb.split()[0] for verb in VERBS}


def read(words: list[str]) -> None:
    """Parses and composes a command line as its verb does. Raises what the verb would raise."""
    function, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    given = bound.arguments
    rest = [word for word in given.get("overrides", ()) if not re.match(r"(out|resume|transfer)=", word)]
    match function.__name__:
        case "train" | "plan" if not any(word.startswith("resume=") for word in words):
            from inlay.train.config import TrainRun

            whole = any(re.match(r"(train\.(steps|tokens|minutes))=", word) for word in rest)
            more = [] if whole else ["train.steps=1"]
            data = [] if any(word.startswith("data") for word in rest) else ["data.path=stores/mine"]
            if "data=mixture" in rest and not any(word.startswith("data.sources.") for word in rest):
                data = [f"data.sources.{name}.path=stores/{name}" for name in ("code", "english")]
            validate(TrainRun, compose("train", [*rest, *more, *data]), where="command line")
        case "prepare":
            from inlay.text.prepare import PrepareConfig

            validate(PrepareConfig, compose("prepare", [*rest, "out=x"]), where="command line")
        case "demo":
            from inlay.cli.demo import schema

            validate(schema(), compose("demo", [*rest, "prepare.out=x"]), where="command line")
        case "sweep":
            from inlay.cli.sweep import NO_TARGET, OWN
            from inlay.cli.sweep import read as read_sweep

            if all(word.split(".")[0].partition("=")[0] in OWN for word in rest):
                apply_overrides({"target": NO_TARGET}, [word for word in rest if word.startswith("target")])
            else:
                read_sweep(rest, given.get("config"))
        case "evaluate":
            from inlay.cli.judge import _options

            kinds = (given.get("task") or "held_out").split(",")
            _options(kinds, take(rest, "family")[1])


@pytest.mark.parametrize("command", [one for one in ALL if one.inlay is None], ids=name_of)
def test_other_programs_are_given_what_is_there(command: Command) -> None:
    line = " ".join(command.words).removeprefix("$ ").replace(".venv/bin/", "")
    found: list[Callable[[list[str]], object]] = [
        check for pattern, check in OTHER.items() if re.fullmatch(pattern, line)
    ]
    assert found, f"what of ours does '{line}' name? add it to OTHER"
    assert found[0](line.split()), line


@pytest.mark.parametrize("comment", overrides_in_comments(), ids=lambda comment: comment.text)
def test_an_override_in_a_comment_composes(comment: Command) -> None:
    read(["train", "train.steps=1", comment.text])


@pytest.mark.parametrize(
    "override",
    [
        "callbacks.wandb={kind: wandb}",
        "callbacks.tensorboard={kind: tensorboard}",
        "model.mtp={weight: 0.1}",
        "model.horizon={weight: 0.1}",
        "model.blocks.attention.mixer.rope_scaling={kind: linear, factor: 2.0}",
    ],
)
def test_a_mapping_for_a_key_that_is_null_composes(override: str) -> None:
    read(["train", "train.steps=1", override])


# ---- prose -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_verbs_in_prose_exist(page: Path) -> None:
    flags = {f"--{name.replace('_', '-')}" for function in VERBS.values() for name in _parameters(function)}
    flags |= {"--type", "--json", "--no-tests", "--help", "--debug", "--as-json"}
    foreign = {"--nproc-per-node", "--logdir", "--nodes", "--run", "--index-url", "--study", "--check", "--serve"}
    text = page.read_text()
    for line in text.splitlines():
        if "llama-server" in line or "vllm" in line or "unshare" in line or "bwrap" in line:
            continue
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
            assert flag in flags | foreign, f"{page.name}: {flag}: {line}"
    for verb in re.findall(r"`(?:\.venv/bin/)?inlay ([a-z]+)", text):
        assert verb in {one.split()[0] for one in VERBS}, f"{page.name}: inlay {verb}"


def _parameters(function: Callable[..., object]) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


def test_nothing_is_promised_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The first sentences of README, help and package say what the verbs do."""
    assert main(["--help"]) == 0
    first = capsys.readouterr().out.split("\n\n")[1]
    readme = (ROOT / "README.md").read_text().split("\n\n")[1]
    promised = {"train": "train", "judge": "evaluate", "serve": "serve", "export": "export", "complete": "complete"}
    there = {verb.split()[0] for verb in VERBS}
    for text in (first, readme):
        for word, verb in promised.items():
            assert verb in there or not re.search(rf"\b{word}s?\b", text, re.IGNORECASE), f"'{word}' in: {text}"


PRINTED = re.compile(rf"(?:^|[\s`:'(])inlay ((?:{NAMES})(?: [\w.]+=\S+| --[\w-]+ [^\s)]+| [A-Z]+\b)+)")


def printed() -> list[str]:
    """Commands inside the texts that the program itself prints; what is filled in there is `RUN`."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "RUN" for part in node.values]
                text = "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            found += PRINTED.findall(text)
    return sorted(set(found))


@pytest.mark.parametrize("text", printed())
def test_what_the_program_tells_one_to_type_is_read(text: str) -> None:
    words = [_replaced(word.rstrip(".,;:`)'")) for word in text.split() if "{" not in word]
    read(words)


KEYS = re.compile(
    r"(?<![\w./{-])((?:train|fim|data|model|optim|schedule|callbacks|parallel|tokenizer|source|split|filters|syntax|"
    r"launcher|search|target|decoding)\.[a-z_]+(?:\.[a-z_]+)*)(?![\w/(])"
)


@pytest.mark.parametrize("page", [*PAGES, *YAML], ids=lambda page: page.name)
def test_option_keys_in_prose_exist(page: Path) -> None:
    text = page.read_text()
    if page.suffix == ".yaml":
        text = "\n".join(line.partition("#")[2] for line in text.splitlines())
    known = keys()
    for key in re.findall(r"`[^`\n]*`", text):
        for name in KEYS.findall(key):
            assert name in known or name.endswith((".py", ".md", ".yaml", ".json", ".jsonl")), f"{page.name}: {name}"


@cache
def keys() -> set[str]:
    """Every dotted key that some configuration of ours has, of every choice of every group."""
    from inlay.cli.sweep import NO_TARGET
    from inlay.config.compose import compose_choice, list_groups
    from inlay.evaluate.subject import Decoding
    from inlay.train.launcher import launchers
    from inlay.train.search import searches

    found: set[str] = set()

    def walk(value: object, prefix: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                found.add(f"{prefix}{key}")
                walk(inner, f"{prefix}{key}.")

    walk(compose("train", ["data.path=x", "train.steps=1"]), "")
    paths = [f"data.sources.{name}.path=x" for name in ("code", "english")]
    walk(compose("train", ["data=mixture", *paths, "train.steps=1"]), "")
    walk(compose("prepare", ["out=x", "source=folder", "source.path=x"]), "")
    for group, choices in list_groups().items():
        for choice in choices:
            if group in ("source", "tokenizer", "fim", "optim", "schedule", "search", "launcher"):
                walk({group: compose_choice(group, choice)}, "")
    for name, registry in (("search", searches), ("launcher", launchers)):
        for cls in map(registry.get, registry.members()):
            found |= {f"{name}.{field}" for field in cls.model_fields}
    found |= {f"target.{key}" for key in NO_TARGET} | {f"decoding.{key}" for key in Decoding.model_fields}
    found |= {"data.sources.docs.path", "data.sources.docs.content", "decoding.key"}
    return found
