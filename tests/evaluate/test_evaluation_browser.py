"""The page of an evaluation in a real browser: every filter is used, and what is shown is counted by hand.

What should be shown is worked out here from the items alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.browser import MISSING, probed
from tests.evaluate.evaluation_results import ANSWERS, bucket, item, items_of, result_of

from inlay.evaluate.evaluation_page import render_evaluation

pytestmark = pytest.mark.skipif(MISSING, reason="no Chromium on this machine")

Item = dict[str, Any]
HOSTILE = (
    "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\u2028\u2029\0\u202e txet ltr "
    "\u05d0\u05d1 \U0001f642 <!-- {{ 7 * 7 }} ]]> &lt; \x1b[31m"
)

TOOLS = """
  const $ = (id) => document.getElementById(id);
  const seen = (one) => { const box = one.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const shown = () => {
    while (!$("further").hidden) $("further").click();
    return [...document.querySelectorAll("#list article")].map((one) => Number(one.dataset.index));
  };
  const state = () => ({ shown: shown(), count: $("count").textContent, hash: decodeURIComponent(location.hash) });
  const texts = (where, from) => [...(from || document).querySelectorAll(where)].map((one) => one.textContent);
  const values = (id) => [...$(id).options].map((one) => one.value);
  const happen = (where, event) => where.dispatchEvent(event);
  const set = (id, value, event = "change") => { $(id).value = value; happen($(id), new Event(event)); };
  const press = (key) => happen(document.body, new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const card = (index) => document.querySelector(`#list [data-index="${index}"]`);
  const view = (name) => document.querySelector(`[data-view="${name}"]`).click();
  const metrics = () => [...document.querySelectorAll(".metric")].filter(seen).map((one) => one.dataset.metric);
  const scroll = () => document.documentElement.scrollWidth;
  const at = () => [...document.querySelectorAll("#list article.at")].map((one) => Number(one.dataset.index));
  const tick = () => new Promise((done) => setTimeout(done, 60));
  const wide = () => [...document.querySelectorAll("main *")].filter((one) => seen(one) && !one.closest(".wide, pre")
    && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 90));
"""


def by(items: list[Item], rule: Callable[[Item], bool]) -> list[int]:
    """Where the items stand that pass, failures first: the page's own default order."""
    found = [index for index, one in enumerate(items) if rule(one)]
    return sorted(found, key=lambda index: (items[index]["measures"]["passed"] == 1.0, index))


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Answers of both rows; those of "spm" are a little better."""
    items = items_of(20)
    for one in items[20::4]:
        one["measures"]["passed"] = 1.0
        one["outcome"] |= {"verdict": "passed", "cause": "passed"}
    return items


@pytest.fixture(scope="module")
def page(items: list[Item]) -> str:
    return render_evaluation(result_of(items), items)


def test_every_filter_shows_what_it_says(page: str, items: list[Item], tmp_path: Path) -> None:
    (found,) = probed(page, TOOLS + """
      const found = { first: state(), selects: {}, options: {}, chips: {}, counts: {} };
      for (const id of ["row", "category", "language", "length"]) {
        found.options[id] = texts("option", $(id));
        found.selects[id] = {};
        for (const value of values(id)) { set(id, value); found.selects[id][value] = state(); }
        set(id, "");
      }
      for (const chip of document.querySelectorAll(".chip")) {
        const name = chip.dataset.verdict, said = chip.querySelector("b").textContent;
        chip.click();
        found.chips[name] = { ...state(), said, pressed: chip.getAttribute("aria-pressed") };
        chip.click();
      }
      found.cleared = state();
      set("row", "spm"); set("category", "line"); document.querySelector('[data-verdict="exact"]').click();
      found.together = state();
      found.left = texts("option", $("category"));
      $("reset").click(); found.reset = state();
      set("search", "SUM(values)", "input"); found.search = state();
      set("search", "no such text anywhere", "input"); found.nothing = { ...state(), text: $("list").textContent };
      set("search", "", "input"); set("sort", "list"); found.list = state();
      set("sort", "worst"); found.worst = state();
      return found;""", tmp_path, 1200)  # fmt: skip
    assert found["errors"] == []
    whole = by(items, lambda one: True)
    failures = sum(one["measures"]["passed"] == 0.0 for one in items)
    assert found["first"] == {"shown": whole, "count": f"40 answers, {failures} failed", "hash": ""}
    rules: dict[str, dict[str, Callable[[Item], bool]]] = {
        "row": {row: lambda one, row=row: one["row"] == row for row in ("psm", "spm")},
        "category": {name: lambda one, name=name: one["category"] == name for name in ("line", "word", "block")},
        "language": {
            name: lambda one, name=name: (one["language"] or "\1") == name for name in ("python", "javascript", "\1")
        },
        "length": {
            name: lambda one, name=name: bucket(one["length"]) == name for name in ("0", "1-10", "11-40")
        },
    }  # fmt: skip
    for name, values in rules.items():
        assert set(found["selects"][name]) == {"", *values}, name
        for value, rule in values.items():
            state, expected = found["selects"][name][value], by(items, rule)
            assert state["shown"] == expected, (name, value)
            assert state["count"].startswith(f"{len(expected)} of 40 answers, ")
            assert f"{name}=" in state["hash"]
            assert any(option.endswith(f"({len(expected)})") for option in found["options"][name])
    marks: dict[str, Callable[[Item], bool]] = {
        "passed": lambda one: one["outcome"]["verdict"] == "passed",
        "wrong": lambda one: one["outcome"]["cause"] == "wrong",
        "timeout": lambda one: one["outcome"]["cause"] == "timeout",
        "exact": lambda one: one["gold"] == one["middle"],
        "invalid": lambda one: one["measures"]["syntax_valid"] == 0.0,
        "no_stop": lambda one: one["stopped"] == "limit",
        "stray": lambda one: one["stopped"] == "sentinel",
        "empty": lambda one: not one["middle"] and bool(one["gold"]),
        "overran": lambda one: one["middle"].startswith(one["gold"]) and len(one["middle"]) > len(one["gold"]) > 0,
        "looped": lambda one: one["measures"]["looped"] == 1.0,
        "suffix_copied": lambda one: one["measures"]["suffix_copied"] == 1.0,
        "indentation": lambda one: one["measures"]["indentation"] == 0.0,
    }
    for name, rule in marks.items():
        assert found["chips"][name]["shown"] == by(items, rule), name
        assert found["chips"][name]["said"] == str(len(by(items, rule)))
        assert found["chips"][name]["pressed"] == "true"
    assert found["cleared"] == found["first"]
    together = by(items, lambda one: one["row"] == "spm" and one["category"] == "line" and one["gold"] == one["middle"])
    assert together
    assert found["together"]["shown"] == together
    left = {
        name: len(by(items, lambda one, name=name: one["row"] == "spm" and one["gold"] == one["middle"]
                     and one["category"] == name))
        for name in ("line", "word", "block")
    }  # fmt: skip
    titles = {"line": "whole line", "word": "one word", "block": "block"}
    assert found["left"] == [f"all ({sum(left.values())})", *(f"{titles[name]} ({n})" for name, n in left.items())]
    assert found["reset"] == found["first"]
    assert found["search"]["shown"] == by(items, lambda one: "sum(values)" in one["middle"])
    assert found["nothing"]["shown"] == []
    assert found["nothing"]["text"] == "No answer fits these filters."
    assert found["list"]["shown"] == list(range(40))
    bits = [items[index]["measures"]["middle_bpb"] or -1.0 for index in found["worst"]["shown"]]
    assert bits == sorted(bits, reverse=True)


def test_keys_addresses_views_and_scores(page: str, items: list[Item], tmp_path: Path) -> None:
    (found,) = probed(page, TOOLS + """
      const found = { keys: [] };
      for (const key of ["j", "j", "j", "k", "k", "k"]) { press(key); found.keys.push(at()); }
      found.views = {};
      for (const name of ["inline", "both", "answer"]) {
        view(name);
        const one = card(1), missing = texts(".missing", one), inserted = texts(".inserted", one);
        const panes = texts("pre", one).length;
        found.views[name] = { text: one.innerText, hash: location.hash, panes, missing, inserted };
      }
      press("v"); found.v = document.querySelector('#views [aria-pressed="true"]').dataset.view;
      press("/"); found.focus = document.activeElement.id; $("search").blur();
      location.hash = "#row=spm&verdict=timeout&category=word&q=tot"; await tick();
      const chip = document.querySelector('[aria-pressed="true"].chip').dataset.verdict;
      found.recalled = { ...state(), row: $("row").value, category: $("category").value, q: $("search").value, chip };
      location.hash = "#row=nonsense&verdict=__proto__&sort=x&view=y&metric=z"; await tick(); found.nonsense = state();
      location.hash = ""; await tick();
      const last = shown().at(-1);
      card(last).querySelector("a.id").click();
      found.link = { hash: location.hash, at: at(), last };
      const address = location.hash; location.hash = "#sort=list"; await tick(); found.away = at();
      location.hash = address; await tick(); found.back = at();
      found.metrics = {};
      for (const value of values("metric")) { set("metric", value); found.metrics[value] = metrics(); }
      location.hash = ""; await tick(); found.main = metrics();
      return found;""", tmp_path, 1200)  # fmt: skip
    assert found["errors"] == []
    order = by(items, lambda one: True)
    assert found["keys"] == [[order[at]] for at in (0, 1, 2, 1, 0, 0)]
    inline, both, answer = (found["views"][view] for view in ("inline", "both", "answer"))
    assert items[1]["gold"] == "    return total + 1\n"
    assert items[1]["middle"] == "    return sum(values)\n"
    assert (inline["missing"], inline["inserted"]) == (["total·+·1"], ["sum(values)"])
    assert (inline["panes"], both["panes"], answer["panes"]) == (1, 4, 1)
    assert (answer["missing"], answer["inserted"]) == ([], ["sum(values)"])
    assert "gold" in both["text"]
    assert inline["hash"] == ""
    assert both["hash"] == "#view=both"
    for text in (inline["text"], answer["text"]):
        assert "def compute(values, total):" in text
        assert "def other():" in text
        assert "AssertionError: 1" in text
    assert found["v"] == "inline"
    assert found["focus"] == "search"
    expected = by(
        items,
        lambda one: one["row"] == "spm" and one["category"] == "word" and one["outcome"]["cause"] == "timeout",
    )
    recalled = found["recalled"]
    assert (recalled["row"], recalled["category"], recalled["q"], recalled["chip"]) == ("spm", "word", "tot", "timeout")
    assert recalled["shown"] == [index for index in expected if "tot" in items[index]["gold"] + items[index]["middle"]]
    assert found["nonsense"]["shown"] == order
    assert found["link"]["at"] == [found["link"]["last"]]
    assert "item=" in found["link"]["hash"]
    assert found["away"] == []
    assert found["back"] == found["link"]["at"]
    assert set(found["metrics"]) >= {"passed", "passed_post", "exact", "exact_post", "stopped", "middle_bpb"}
    assert all(visible == [name] for name, visible in found["metrics"].items()), "one at a time"
    assert found["main"] == ["passed"]


def test_hostile_texts_on_a_phone_and_on_a_desk(tmp_path: Path) -> None:
    long = "a_name_without_any_end_" * 5000
    texts = {name: HOSTILE + name for name in ("id", "path", "gold", "middle", "prefix", "suffix", "post")}
    items = [
        item(1, ANSWERS[1], category=HOSTILE + "category", language=HOSTILE + "language", **texts),
        item(2, ANSWERS[1], id="long", middle=long, gold=long[:-3] + "!", prefix=long[:1200], path=long[:300]),
        item(3, ANSWERS[8], id="spaces", gold="\t\t\n  \n", middle="    \n\n"),
        *items_of(30),
    ]
    items[0]["outcome"] = {**items[0]["outcome"], "cause": "wrong", "verdict": "failed", "detail": HOSTILE + "detail"}
    result = result_of(items, sample=True, of=1033)
    result["settings"] |= {"name": HOSTILE, "post": HOSTILE, "decoding": HOSTILE, "command": HOSTILE, "other": HOSTILE}
    result["gold"] |= {"exact": 0.9, "failures": [{"id": HOSTILE + long[:500], "reason": HOSTILE}]}
    both = probed(render_evaluation(result, items), TOOLS + """
      const found = { width: innerWidth, scroll: scroll(), wide: wide() };
      document.querySelectorAll("details").forEach((one) => { one.open = true; });
      found.opened = scroll(); found.openedWide = wide();
      for (const name of ["inline", "both", "answer"]) {
        view(name); shown();
        document.querySelectorAll("button.more").forEach((one) => one.click());
        found[name] = { scroll: scroll(), wide: wide(), text: card(0).textContent };
      }
      found.long = card(1).textContent.length;
      found.pwned = window.pwned ?? null;
      found.images = document.images.length; found.scripts = document.scripts.length;
      found.head = document.querySelector("main").textContent.slice(0, 3000);
      view("inline"); shown();
      found.spaces = card(2).querySelector("pre").innerHTML;
      found.tooSmall = [...document.querySelectorAll("main *")].filter((one) => one.children.length === 0 && seen(one)
        && one.textContent.trim() && parseFloat(getComputedStyle(one).fontSize) < 11).map((one) => one.outerHTML);
      return found;""", tmp_path, 390, 1200)  # fmt: skip
    for found, width in zip(both, (390, 1200), strict=True):
        assert found["errors"] == []
        assert found["pwned"] is None
        assert found["images"] == 0
        assert found["scripts"] == 6, "the guard, the page's four and the probe"
        assert found["width"] == width
        assert found["scroll"] <= width
        assert found["opened"] <= width
        assert found["wide"] == found["openedWide"] == []
        assert found["tooSmall"] == []
        for view in ("inline", "both", "answer"):
            assert found[view]["scroll"] <= width, view
            assert found[view]["wide"] == [], view
            text = found[view]["text"]
            for name in ("id", "path", "middle", "prefix", "suffix", "post", "detail", "category", "language"):
                assert f"31m{name}" in text, (view, name)
            assert not set(text) & set("\0\x1b\u2028\u202e"), "what has no shape is named, not passed on"
            for shown in (
                "</script><script>",
                "<img·src=x" if view != "answer" else "<img",
                "U+2028",
                "U+0000",
                "U+202E",
            ):
                assert shown in text or shown.replace("·", " ") in text, (view, shown)
        assert "not to be trusted" in found["head"]
        assert "shipped sample" in found["head"]
        assert found["long"] < 20_000, "a very long answer is cut, and the card says so"
        assert 'class="ws"' in found["spaces"]


def test_a_page_of_many_answers_draws_few_at_first(tmp_path: Path) -> None:
    items = [one | {"language": "python"} for one in items_of(3000, ("spm",))]
    (found,) = probed(render_evaluation(result_of(items), items), TOOLS + """
      const before = texts("#list article").length, text = $("answers").textContent;
      for (let n = 0; n < 45; n++) press("j");
      const hidden = ["row", "category", "language", "length", "sort"].filter((id) => !seen($(id)));
      return { before, after: texts("#list article").length, at: at(), count: $("count").textContent, text, hidden };
    """, tmp_path, 1200)  # fmt: skip
    assert found["errors"] == []
    assert found["hidden"] == ["row", "language"], "nothing to choose, nothing to show"
    assert 20 <= found["before"] <= 60
    assert 45 <= found["after"] < 200
    failures = [index for index, one in enumerate(items) if one["measures"]["passed"] == 0.0]
    assert len(failures) < 2000, "so all of them are on the page"
    assert found["count"] == f"2,000 answers, {len(failures):,} failed"
    assert "This page holds 2,000 of them, all failures before any success; 0 failures and 1,000 others" in (
        " ".join(found["text"].split())
    )
