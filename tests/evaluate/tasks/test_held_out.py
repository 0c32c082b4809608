import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import yaml
from tests.evaluate.conftest import module

from inlay.config import BadInput, ConfigError, InlayError, validate
from inlay.evaluate.corpus import of_documents
from inlay.evaluate.node_cuts import every_node, node_places
from inlay.evaluate.task import Category, Corpus, Example, Place, SourceDocument
from inlay.evaluate.tasks import held_out
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.infer.run_stores import MainStore
from inlay.text.document import content_id
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer
from inlay.train.callbacks.samples import probe_gaps

JAVASCRIPT = (
    "function add_{0}(first, second) {{\n  if (first > {0}) {{ return call(first, second); }}\n  return first;\n}}\n"
)


def mixed(python: int, javascript: int) -> Corpus:
    texts = [(f"m{number}.py", "python", module(number)) for number in range(python)]
    texts += [(f"m{number}.js", "javascript", JAVASCRIPT.format(number)) for number in range(javascript)]
    return of_documents([SourceDocument(content_id(text), path, lang, text) for path, lang, text in texts], "mixed")


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def contents(examples: list[Example]) -> str:
    return digest([repr((one.id, one.prefix, one.middle, one.suffix)) for one in examples])


def test_the_default_list_is_what_it_has_always_been(corpus: Corpus, tokenizer: Tokenizer) -> None:
    # Hashes of what the version of issue 5 drew: runs are compared over years, so no gap may move.
    whole = HeldOutConfig().gaps(corpus, tokenizer)
    assert len(whole) == 1548
    ids = [example.id for example in whole]
    assert digest(ids) == "499d0cbe278018f76cebd7e1c98234f6dcb76e88ab711a6c4d0ddf0031958902"
    assert contents(whole) == "f5694ec394a6a4054566fbfc421a64149dfee73e2cf2f6b10e3a58f96b289e0f"
    beginning = HeldOutConfig().gaps(corpus, tokenizer, limit=100)
    assert contents(beginning) == "00929adb332a37b9d6e3b38a86774f8ac5d69eac568dad997a6400fba90e3afd"


def test_the_probes_of_training_are_what_they_have_always_been(corpus: Corpus, tokenizer: Tokenizer) -> None:
    lines = [
        repr((one.origin, one.category, one.prefix, one.middle, one.suffix)) for one in probe_gaps(corpus, tokenizer, 6)
    ]
    assert digest(lines) == "9cc00e087949d2de6fcc88bfdd6ac490ac2da2b61e79dedd3163ae60bfa8f1b5"
    assert probe_gaps(corpus, tokenizer, 0) == []


def test_the_list_is_fixed_mixed_and_independent_of_store_order(corpus: Corpus, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={"word": 20, "tokens_1_4": 20, "line": 10})
    first = [example.id for example in config.gaps(corpus, tokenizer)]
    assert first == [example.id for example in config.gaps(corpus, tokenizer)]
    documents = [corpus.read(index) for index in range(len(corpus.ids))]
    assert first == [example.id for example in config.gaps(of_documents(documents[::-1], "other"), tokenizer)]
    assert len(set(first)) == len(first) == 50
    assert [name.split(":")[0] for name in first[:6]] == ["word", "tokens_1_4", "line"] * 2
    other = config.model_copy(update={"seed": 1})
    assert first != [example.id for example in other.gaps(corpus, tokenizer)]


@pytest.mark.parametrize("limit", [1, 7, 26, 49, 60])
def test_a_limit_takes_the_beginning_even_where_a_kind_falls_short(
    corpus: Corpus, tokenizer: Tokenizer, limit: int
) -> None:
    # The corpus has few imports; the others then have more of the beginning than their share.
    config = HeldOutConfig(categories={"word": 20, "line": 10}, kinds={"import": 20})
    whole = [example.id for example in config.gaps(corpus, tokenizer)]
    assert len(whole) < 50
    assert [example.id for example in config.gaps(corpus, tokenizer, limit=limit)] == whole[:limit]


def test_documents_take_turns(corpus: Corpus, tokenizer: Tokenizer) -> None:
    examples = HeldOutConfig(categories={"word": len(corpus.ids)}).gaps(corpus, tokenizer)
    assert {example.group for example in examples} == set(corpus.ids)


def test_an_example_is_its_document_with_a_gap(corpus: Corpus, tokenizer: Tokenizer) -> None:
    documents = {name: corpus.read(index) for index, name in enumerate(corpus.ids)}
    for example in HeldOutConfig(kinds={"call": 5}).gaps(corpus, tokenizer, limit=60):
        document = documents[example.group]
        assert example.document == document.text
        assert (example.path, example.language) == (document.path, document.language)
        assert example.id == (
            f"{example.category}:{document.id[:12]}:{len(example.prefix)}-{len(example.prefix + example.middle)}"
        )


def test_a_short_corpus_gives_what_it_has(tokenizer: Tokenizer) -> None:
    tiny = of_documents([SourceDocument("0", "a.py", "python", "a = b\n")], "tiny")
    assert len(HeldOutConfig(categories={"word": 50}).gaps(tiny, tokenizer)) == 2
    empty = of_documents([SourceDocument("0", "a.py", "python", " \n")], "empty")
    with pytest.raises(BadInput, match="no gap can be cut from empty"):
        HeldOutConfig(categories={"word": 5, "line": 5}).gaps(empty, tokenizer)


def test_large_documents_are_left_out(corpus: Corpus, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={"word": 30}, max_document_bytes=200)
    sizes = [len(example.document.encode()) for example in config.gaps(corpus, tokenizer)]
    assert sizes
    assert max(sizes) <= 200


def test_nodes_are_cut_by_name(corpus: Corpus, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={}, kinds={"condition": 8, "arguments": 8, "for_*": 8, "return": 8})
    examples = config.gaps(corpus, tokenizer)
    assert Counter(example.category for example in examples) == {
        "condition": 8,
        "arguments": 8,
        "for_*": 8,
        "return": 8,
    }
    for example in examples:
        assert example.language == "python"
        places = node_places(example.document, every_node(example.document, "python"), example.category)
        assert (len(example.prefix), len(example.prefix + example.middle)) in places
        assert len(tokenizer.encode(example.middle)) <= config.max_tokens
    # What does not parse is not cut: that file has a return as well.
    assert not any("def broken(:" in example.document for example in examples)


def test_a_kind_that_nothing_has_is_refused(corpus: Corpus, tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match=r"kinds: no 'conditon' of at most 64 tokens is found in memory.*'condition'"):
        HeldOutConfig(kinds={"conditon": 5}).gaps(corpus, tokenizer)
    with pytest.raises(BadInput, match="no 'function' of at most 2 tokens"):
        HeldOutConfig(kinds={"function": 5}, max_tokens=2).gaps(corpus, tokenizer)


def test_languages_share_each_number(tokenizer: Tokenizer) -> None:
    corpus = mixed(20, 3)

    def languages(config: HeldOutConfig) -> Counter[tuple[str, str | None]]:
        return Counter((one.category, one.language) for one in config.gaps(corpus, tokenizer))

    as_they_come = languages(HeldOutConfig(categories={"word": 40}))
    assert as_they_come["word", "python"] > 30
    even = languages(HeldOutConfig(categories={"word": 41}, kinds={"condition": 6}, languages="even"))
    assert even["word", "javascript"] == 21
    assert even["word", "python"] == 20
    assert even["condition", "javascript"] == even["condition", "python"] == 3
    weighted = languages(HeldOutConfig(categories={"word": 40}, languages={"python": 3.0, "javascript": 1.0}))
    assert weighted == {("word", "python"): 30, ("word", "javascript"): 10}
    assert set(languages(HeldOutConfig(categories={"word": 9}, languages={"javascript": 1.0}))) == {
        ("word", "javascript")
    }
    with pytest.raises(BadInput, match=r"no document of mixed is in 'pyton'.*it has javascript, python"):
        languages(HeldOutConfig(languages={"pyton": 1.0}))


def test_lengths_share_each_number(corpus: Corpus, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={"line_end": 10, "empty": 4}, kinds={"call": 4}, lengths=("1-4", "5-12"))
    examples = config.gaps(corpus, tokenizer)
    sizes = {
        name: Counter("short" if size <= 4 else "long" if size <= 12 else "?" for size in found)
        for name in ("line_end", "call")
        for found in [[len(one.middle.encode()) for one in examples if one.category == name]]
    }
    assert sizes["line_end"] == {"short": 5, "long": 5}
    assert sizes["call"]["long"] == 2
    assert all(len(one.middle) > 0 for one in examples if one.category != "empty")
    assert [one.middle for one in examples if one.category == "empty"] == [""] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": ["10-4"]}, "is no length: write LEAST-MOST bytes"),
        ({"lengths": ["ten"]}, "is no length"),
        ({"lengths": ["1-10", "10-20"]}, "lengths overlap at 10 bytes"),
        ({"kinds": {"word": 5}}, "'word' is a category, no syntax node"),
        ({"categories": {"word": -1}}, "categories.word' = -1: input should be greater than or equal to 0"),
        ({"categories": {"words": 1}}, "words"),
        ({"languages": {}}, "give each language a weight above 0"),
        ({"languages": {"python": 0.0}}, "give each language a weight above 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(HeldOutConfig, {"kind": "held_out", **options})


def test_examples_come_from_a_store_a_folder_or_a_file(run: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={"word": 12, "tokens_1_4": 4})
    store = tmp_path / "store"
    named = config.examples(Place(data=str(store)))
    assert named.source == f"validation split of {store}"
    own = config.examples(Place(store=lambda: MainStore(TokenStore.open(store), None)))
    assert own.source == "validation split of the run's store"
    assert [one.id for one in own.items] == [one.id for one in named.items]
    assert own.hash == named.hash
    assert not own.sample
    part = config.examples(Place(data=str(store)), limit=3)
    assert (len(part.items), part.of) == (3, len(named.items))
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.py").write_text(module(3), encoding="utf-8")
    # A name that stores use as well does not make a folder one.
    (folder / "manifest.json").write_text('{"name": "web"}', encoding="utf-8")
    for path in (folder, folder / "one.py"):
        found = config.examples(Place(data=str(path), tokenizer=tokenizer))
        assert any(one.path == "one.py" for one in found.items)
    assert found.hash != named.hash
    changed = config.examples(Place(data=str(folder), tokenizer=tokenizer)).hash
    # A store whose manifest is gone or damaged is named as such: its tokenizer.json is no code to cut gaps from.
    broken = shutil.copytree(store, tmp_path / "broken")
    (broken / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(InlayError, match=r"manifest\.json does not match its hash"):
        config.examples(Place(data=str(broken)))
    (broken / "manifest.json").unlink()
    with pytest.raises(BadInput, match=r"looks like a token store without its manifest\.json"):
        config.examples(Place(data=str(broken), tokenizer=tokenizer))
    (folder / "one.py").write_text(module(4), encoding="utf-8")
    assert config.examples(Place(data=str(folder), tokenizer=tokenizer)).hash != changed


def test_without_a_tokenizer_some_categories_remain(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(module(3), encoding="utf-8")
    config = HeldOutConfig(categories={"word": 5, "line": 3}, kinds={"call": 2})
    assert len(config.examples(Place(data=str(tmp_path))).items) == 10
    with pytest.raises(BadInput, match="category 'tokens_1_4' counts tokens"):
        HeldOutConfig().examples(Place(data=str(tmp_path)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "nothing says what the model was trained from"),
        ("no/such/place", "no such file or folder to evaluate on: no/such/place"),
        ("hf:one/two", "not from 'hf:one/two': prepare a store"),
    ],
)
def test_a_place_without_documents_is_refused(data: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        HeldOutConfig().examples(Place(data=data))


def test_the_shipped_options_are_the_defaults() -> None:
    file = Path(held_out.__file__).parents[2] / "conf" / "evaluate" / "held_out.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert validate(HeldOutConfig, data) == HeldOutConfig()
    assert set(data) == set(HeldOutConfig.model_fields)
    assert list(data["categories"]) == list(get_args(Category))


def test_data_and_prose_have_a_stated_share(tokenizer: Tokenizer) -> None:
    """Many JSON files beside a little code; code alone and data alone are drawn as ever."""

    def corpus(python: int, data: int) -> Corpus:
        texts = [(f"m{number}.py", "python", module(number)) for number in range(python)]
        texts += [(f"d{number}.json", "json", f'{{"name_{number}": "value {number}"}}\n') for number in range(data)]
        return of_documents([SourceDocument(content_id(text), path, lang, text) for path, lang, text in texts], "mixed")

    def share(config: HeldOutConfig, made: Corpus) -> float:
        gaps = config.gaps(made, tokenizer)
        assert len(gaps) == 40
        return sum(gap.language == "json" for gap in gaps) / 40

    capped, words = HeldOutConfig(categories={"word": 40}, data_share=0.2), HeldOutConfig(categories={"word": 40})
    assert share(words, corpus(6, 60)) > 0.7
    assert share(capped, corpus(6, 60)) == 0.2
    assert share(capped, corpus(0, 40)) == 1.0, "nothing but data"
    longer = HeldOutConfig(categories={"word": 90}, data_share=0.2).gaps(corpus(6, 60), tokenizer)
    assert longer[:40] == capped.gaps(corpus(6, 60), tokenizer), "the beginning of a longer list"
    assert capped.gaps(mixed(9, 4), tokenizer) == words.gaps(mixed(9, 4), tokenizer)
