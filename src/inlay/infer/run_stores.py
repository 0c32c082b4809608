"""Which token stores a run was trained from, where they are now, and whether they still hold what they held.

A run keeps, in `stores.json`, for each of its stores the path, the path as seen from the run, the hash of the content
and the manifest without its file list. So the stores are found from any folder, also after run and store have moved
together; a store that was prepared again in its place is told from the one that the run was trained on, since its
held-out documents may be ones that the run has read; and an export knows its data when the store is gone. It refuses a
store with another content, and says where a missing one was looked for.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from inlay.config import BadInput, Config, InlayError, validate
from inlay.config.files import parse_json, read_bounded_text, write_atomic
from inlay.data.config import DataConfig
from inlay.data.mixture import mixed_hash
from inlay.model import checkpoint
from inlay.text.store import TokenStore

FILE = "stores.json"


class StoreRecord(Config):
    """One store as it was when the run began."""

    name: str | None
    """Of the source in a mixture; null for the only one."""
    path: str
    beside: str
    """The same as seen from the run directory."""
    hash: str
    """Of its content."""
    manifest: dict[str, Any]
    """As the store had it, without the list of its files."""


class Stores(Config):
    """The content of `stores.json`."""

    stores: tuple[StoreRecord, ...]
    seal: str
    """Hash of the rest: a changed path or hash would blame the wrong store."""


@dataclass(frozen=True)
class MainStore:
    """The store that evaluation and samples are about."""

    store: TokenStore
    name: str | None
    """Of its source in a mixture."""

    @property
    def title(self) -> str:
        """For people."""
        return "the run's store" if self.name is None else f"'{self.name}', the main store of the run's mixture"


def record(run: Path, data: DataConfig, stores: Mapping[str, TokenStore]) -> None:
    """Writes down the stores of a run; `stores` by their path in `data`."""
    records = []
    for name, path in named_paths(data).items():
        store, place = stores[path], os.path.abspath(path)
        manifest = {key: value for key, value in store.manifest.items() if key != "files"}
        beside = os.path.relpath(place, run.resolve())
        records.append(StoreRecord(name=name, path=place, beside=beside, hash=store.hash, manifest=manifest))
    dumped = [one.to_dict() for one in records]
    write_atomic(run / FILE, json.dumps({"stores": dumped, "seal": _seal(dumped)}, indent=1) + "\n")


def recorded(run: Path) -> dict[str | None, StoreRecord]:
    """What `record` has written, by the name of the source; empty where a run of an older version has nothing.

    Raises InlayError when the file is damaged.
    """
    file = run / FILE
    if not file.is_file():
        return {}
    damaged = InlayError(f"damaged {file}: take it away, and name the store where it is asked for")
    try:
        data = parse_json(read_bounded_text(file))
        found = validate(Stores, data, where=str(file))
    except OSError as error:
        raise InlayError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError, BadInput):
        raise damaged from None
    if found.seal != _seal(data["stores"]):
        raise damaged
    return {one.name: one for one in found.stores}


def found_data(run: Path, data: DataConfig, said: Collection[str | None] = ()) -> DataConfig:
    """`data` of a run with the absolute paths at which its stores are now.

    `said`: names of the sources whose paths are the user's: no other place is looked at for them. Raises BadInput for a
    store that is not there or has another content than the run was trained on.
    """
    known, names = recorded(run), named_paths(data)
    hashes = _trained_on(run, data) if not known else {name: one.hash for name, one in known.items()}
    found = {
        name: os.path.abspath(_find(run, path, known.get(name), hashes.get(name), name in said))
        for name, path in names.items()
    }
    if data.path is not None:
        return data.model_copy(update={"path": found[None]})
    sources = {name: one.model_copy(update={"path": found[name]}) for name, one in data.sources.items()}
    return data.model_copy(update={"sources": sources})


def main_store(run: Path | None, config: Mapping[str, Any]) -> MainStore:
    """Opens the store that evaluations of a run are about, all of it verified. `config`: of the run, as plain data;
    `run` is None for a model in memory, whose store is where its configuration says.

    Raises BadInput when nothing says which, or the store is gone or has another content.
    """
    data = data_of(config)
    if data is None:
        raise BadInput("the model does not say what store it was trained from")
    found = data if run is None else found_data(run, data)
    return MainStore(TokenStore.open(found.main), found.main_source)


def main_manifest(run: Path | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the main store as the run was trained on it; None where nothing is left that says it."""
    data = data_of(config)
    if data is None:
        return None
    try:
        known = None if run is None else recorded(run).get(data.main_source)
        return known.manifest if known is not None else main_store(run, config).store.manifest
    except InlayError:
        return None


def manifests(run: Path | None, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The manifest of each source of a mixture as the run was trained on it; empty for one store, or unknown ones."""
    data = data_of(config)
    if run is None or data is None or not data.sources:
        return {}
    try:
        known = recorded(run)
        if not known:
            found = found_data(run, data)
            return {name: TokenStore.open(one.path, verify=False).manifest for name, one in found.sources.items()}
    except InlayError:
        return {}
    return {name: known[name].manifest for name in data.sources if name in known}


def data_of(config: Mapping[str, Any]) -> DataConfig | None:
    """The data of a run's configuration; None where it has none that this version reads."""
    data = config.get("data")
    try:
        return validate(DataConfig, data) if isinstance(data, dict) else None
    except BadInput:
        return None


def named_paths(data: DataConfig) -> dict[str | None, str]:
    """Every store by the name of its source; None for the only one."""
    return {None: data.path} if data.path is not None else {name: one.path for name, one in data.sources.items()}


def _find(run: Path, path: str, known: StoreRecord | None, expected: str | None, said: bool) -> str:
    places = [path]
    if known is not None and not said:
        places = [path, known.path, os.path.normpath(run.resolve() / known.beside)]
    if expected is None:
        return path  # a run that has begun nothing yet, or of a version that did not say
    others = []
    for place in dict.fromkeys(places):
        try:
            store = TokenStore.open(place, verify=False)
        except BadInput:
            continue  # not there, or something else by now
        if store.hash == expected:
            return place
        others.append((place, store.hash))
        if place == path and os.path.isabs(path) and known is not None and path != known.path:
            break  # the configuration was changed to another store: going on with the recorded one would ignore that
    if others:
        place, other = min(others, key=lambda one: one[0] != path)
        raise BadInput(
            f"the store {place} is not the one that {run} was trained on (content {other[:8]}, not {expected[:8]}):"
            " if it was prepared again, documents that it holds out may be among those that the run was trained on"
        )
    raise BadInput(f"the store {' or '.join(dict.fromkeys(places))} that {run} was trained on is not there")


def _trained_on(run: Path, data: DataConfig) -> dict[str | None, str]:
    """The hashes of the stores by the newest readable checkpoint of a run without a record. That of a mixture says one
    for all stores: what is at the configured paths is taken if it has that, and else nothing fits."""
    for folder in checkpoint.folders(run):
        try:
            state = checkpoint.read_record(folder).get("loader")
        except InlayError:
            continue
        whole = state.get("store") if isinstance(state, dict) else None
        if not isinstance(whole, str) or not whole:
            return {}
        if data.path is not None:
            return {None: whole}
        try:
            there = {name: TokenStore.open(one.path, verify=False).hash for name, one in data.sources.items()}
        except BadInput:
            return {}
        return {**there} if mixed_hash(there) == whole else dict.fromkeys(data.sources, "unknown")
    return {}


def _seal(stores: list[dict[str, Any]]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(stores, sort_keys=True).encode())
