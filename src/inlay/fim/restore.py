"""Reads examples back: the inverse of rendering, from regions or from bare ids.

With regions everything is told. Bare ids are read by their sentinels, strictly: what is no whole example of the format
is refused, and so is what ids cannot tell. A document's own text never holds a special token, so every special token is
a border.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from inlay.fim.example import FimTokens, Ids, Kind, Region, Repository
from inlay.fim.family import ORDERS, Order, RepositoryForm

if TYPE_CHECKING:
    from inlay.fim.format import FimFormat


def restore_example(form: "FimFormat", example: FimTokens) -> bytes:
    """The document's bytes by the example's regions. Raises ValueError when it does not end in a terminator."""
    tokens, regions = example.tokens, example.regions
    if not len(tokens) or regions[-1] != Region.TERMINATOR or tokens[-1] not in (form.eot, form.end):
        raise ValueError("the example does not end in its terminator")
    labels = np.flatnonzero(regions == Region.HEADER)
    if example.kind == Kind.L2R:
        start = int(labels[-1]) + 1 if len(labels) else 0
        text = tokens[start:][regions[start:] == Region.TEXT]
        return _unspaced(form, form.tokenizer.decode_bytes(text.tolist()), bool(len(text)) and not len(labels))
    prefix, middle, suffix = (
        tokens[regions == part].tolist() for part in (Region.PREFIX, Region.MIDDLE, Region.SUFFIX)
    )
    sentinels = np.flatnonzero(regions == Region.SENTINEL)[form.bos is not None :]
    inside = len(labels) > 0 and int(labels[-1]) > int(sentinels[0])
    data = form.tokenizer.decode_bytes(prefix + middle + suffix)
    return _unspaced(form, data, bool(prefix) and not inside)


def restore_ids(form: "FimFormat", tokens: Ids) -> bytes:
    """The document's bytes by the example's sentinels. Raises ValueError for anything but one whole example."""
    ids = [int(token) for token in tokens]
    if not ids or (last := ids.pop()) not in (form.eot, form.end):
        raise ValueError("the example does not end in its terminator")
    if form.bos is not None and (not ids or ids.pop(0) != form.bos):
        raise ValueError(f"the example does not begin with its beginning token '{form.family.bos}'")
    names = {form.prefix: "prefix", form.suffix: "suffix"}
    extra = {form.middle: "middle", form.hint_start: "hint_start", form.hint_end: "hint_end"}
    names.update({token: name for token, name in extra.items() if token is not None})
    marks = [index for index, token in enumerate(ids) if token in names]
    header = {token for token in (form.repo, form.file) if token is not None}
    block = marks[0] if marks else len(ids)
    if not form.specials.intersection(ids[:block]) <= header or not form.specials.intersection(ids[block:]) <= set(
        names
    ):
        raise ValueError("the example has a special token inside a part")
    if not marks:
        return _restore_plain(form, ids, last)
    if last != form.eot:
        raise ValueError("the example does not end in its terminator")
    borders = [*marks, len(ids)]
    found = [names[ids[index]] for index in marks]
    parts = [ids[start + 1 : stop] for start, stop in zip(marks, borders[1:], strict=True)]
    order = _order(form, found)
    if order is None or (block and not _is_header(form, ids[:block])):
        raise ValueError("the sentinels are in no known order")
    by_name = dict(zip(found, parts, strict=True))
    decode = form.tokenizer.decode_bytes
    # `<PRE><SUF>s<MID>pm` reads as PSM with an empty prefix, and both restore to what follows <MID>, then s.
    before, behind = decode(by_name["prefix"]), decode(by_name.get("middle", []))
    opened = bool(by_name["prefix"])
    if form.dummy and (order == "spm_open" or (order == "psm" and not opened and _has_open_prefix(form))):
        raise ValueError("ids alone cannot tell whether the example has a leading space; give its FimTokens")
    if block and form.family.repository is not None and form.family.repository.place == "path_in_prefix":
        before, behind = (_behind_label(form, before), behind) if opened else (b"", _behind_label(form, behind))
    return _unspaced(form, before, opened) + behind + decode(by_name["suffix"])


def restore_repository(form: "FimFormat", example: FimTokens) -> Repository:
    """Name, files, path and last file of an example with a header. Raises ValueError when it has none."""
    repository = form.family.repository
    labels = np.flatnonzero(example.regions == Region.HEADER)
    if repository is None or not len(labels):
        raise ValueError("the example has no repository header")
    name: str | None = None
    files: list[tuple[str, bytes]] = []
    kept = np.isin(example.regions, (Region.HEADER, Region.TEXT))
    kept[labels[-1] + 1 :] = False
    tokens, regions = example.tokens[kept], example.regions[kept]
    borders = [0, *(np.flatnonzero(np.diff(regions)) + 1).tolist(), len(tokens)]
    for start, stop in pairwise(borders):
        run = tokens[start:stop].tolist()
        if regions[start] == Region.TEXT:
            files[-1] = (files[-1][0], form.tokenizer.decode_bytes(run))
            continue
        if form.repo is not None and run[0] == form.repo:
            end = run.index(form.file)
            name = form.tokenizer.decode_bytes(run[1:end]).decode().removesuffix(repository.after_repo)
            run = run[end:]
        files += [(path, b"") for path in _paths(form, repository, run)]
    path, _ = files.pop()
    return Repository(name, tuple(files), path, restore_example(form, example))


def _paths(form: "FimFormat", repository: RepositoryForm, run: list[int]) -> list[str]:
    """The paths of a run of header tokens: one a line, and no path has a line end."""
    text = form.tokenizer.decode_bytes([token for token in run if token != form.file]).decode()
    lines = [
        line.removeprefix(" ") if form.dummy and not index else line for index, line in enumerate(text.split("\n"))
    ]
    if repository.before_path:
        return [line.removeprefix(repository.before_path) for line in lines if line.startswith(repository.before_path)]
    return lines[:-1]


def _restore_plain(form: "FimFormat", ids: list[int], last: int) -> bytes:
    if last != form.end:
        raise ValueError("the example does not end in its terminator")
    decode = form.tokenizer.decode_bytes
    if form.file in ids:
        if not _is_header(form, ids):
            raise ValueError("the header is in no known order")
        at = len(ids) - ids[::-1].index(form.file)
        return _behind_label(form, decode(ids[at:]))
    if form.repo in ids:
        raise ValueError("the header is in no known order")
    return _unspaced(form, decode(ids), bool(ids))


def _is_header(form: "FimFormat", ids: list[int]) -> bool:
    repository = form.family.repository
    if repository is None or repository.place == "in_prefix":
        return False
    opens = [form.repo] if form.repo is not None else [form.file]
    return (ids[0] in opens or not repository.first_file) and ids.count(form.repo or -1) <= 1


def _behind_label(form: "FimFormat", data: bytes) -> bytes:
    repository = form.family.repository
    assert repository is not None
    label, end, text = data.partition(repository.after_path.encode())
    if not end:
        raise ValueError(f"the path {label[:40]!r} does not end")
    return text


def _order(form: "FimFormat", found: list[str]) -> Order | None:
    hinted = "hint_start" in found
    wanted = {"prefix": ["prefix"], "suffix": ["suffix"], "middle": ["middle"], "hints": ["hint_start", "hint_end"]}
    for order in ORDERS:
        if (order == "spm_open") == (form.middle is None):
            layout = form.family.layout(order, hinted and order != "spm_open")
            if found == [name for place in layout for name in wanted.get(place, [])]:
                return order
    return None


def _has_open_prefix(form: "FimFormat") -> bool:
    return any(order in ("spm_v2", "spm_joint") for order in form.family.orders)


def _unspaced(form: "FimFormat", data: bytes, spaced: bool) -> bytes:
    return data[1:] if form.dummy and spaced else data
