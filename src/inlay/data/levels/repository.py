"""Repository level: files of one repository in one window, and the FIM block of the last one behind them.

    <|repo_name|>R  <|file_sep|>path text  <|file_sep|>path text ...  <|file_sep|>path  FIM block

The other files come in this order: unused ones of the same folder, then those the target imports, then any of the
repository; within each, as drawn anew each epoch. Every document is text once an epoch, as target or as another's
context; one that had to be cut as context (at its tail, between characters) is a target as well, and context no second
time. A target that does not fit is chunked as at context level, each piece with context of its own. How long the
example shall be is drawn (unless `data.shortest_piece` is null: then as long as the row), because examples that all end
where the row ends tell the model how long the middle is.

Where an example comes out longer than planned, the context gives way first, from its front; then the fit rule of every
level holds. It refuses families without a repository form, and rows too short for two names.

llama.cpp sends `myproject` and `filename` where it does not know better (`format_infill` in its server), so a share of
the examples has these names, which also stand in for names too long for the row.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from inlay.config import BadInput
from inlay.data.level import Level, Piece, Placed, Setting
from inlay.data.plan import Context, Pieces, Plan, chunk_document, pack
from inlay.data.related import Paths, imported
from inlay.fim.draws import Draws, permutation
from inlay.fim.format import Region
from inlay.fim.transform import Transform, character_from
from inlay.text.store import DocumentInfo

SERVED_NAMES = ("myproject", "filename")
"""Repository and file as llama.cpp's server names them."""
SHORTEST_CUT = 32
"""Tokens of a file that are worth a place in the context when the rest does not fit."""
HEAD = 2_000
"""Tokens at a file's beginning in which its imports are looked for."""
LONGEST_NAMES = 0.25
"""Share of a row that repository and path may take."""


class RepositoryLevel(Level):
    """Context files, then the target's FIM block."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._served_cost = self._header_size(*SERVED_NAMES)
        least = self._served_cost + 4 * Transform.RESERVE
        if self.length < least:
            raise BadInput(f"fim.level=repository: rows of {self.length} tokens are too short; use at least {least}")
        self._repositories: list[Repository] | None = None
        self._file_costs: dict[int, int] = {}

    def plan(self, epoch: int) -> Plan:
        targets: list[tuple[int, int, int, int, int, bool, int]] = []
        contexts: list[list[tuple[int, int]]] = []
        for repository in self._all():
            order = permutation(len(repository.files), self.seed, epoch, "files", repository.name)
            shelf = Shelf(repository, order)
            for number in order.tolist():
                if not shelf.use(number):
                    continue
                for piece, base in self._target(repository, number, epoch):
                    context, cost = self._fill(
                        shelf, number, base + piece[2] - piece[1] + Transform.RESERVE, epoch, piece[1]
                    )
                    targets.append((*piece, cost))
                    contexts.append(context)
        columns = [np.array(column, dtype=np.int64) for column in zip(*targets, strict=True)]
        columns[5] = columns[5].astype(bool)
        plan, placed = pack(Pieces(*columns), self.length, self.seed, epoch)
        ordered = [contexts[index] for index in placed.tolist()]
        flat = np.array(list(chain.from_iterable(ordered)), dtype=np.int64).reshape(-1, 2)
        first = np.concatenate(([0], np.cumsum([len(context) for context in ordered])))
        return replace(plan, context=Context(flat[:, 0], flat[:, 1], first))

    def place(self, plan: Plan, epoch: int, piece: Piece, slot: int, room: int) -> Placed:
        number, document, start, stop, byte_start, byte_stop, whole, _ = piece
        tokens = self.split.tokens(document, start, stop)
        info = self.split.document(document)
        served = Draws(self.seed, epoch, document, start, "names").uniform() < self.transform.config.served_names
        name, path = SERVED_NAMES if served or self._unfit(info) else (info.repo, info.path)
        files = self._context(plan, number)
        while True:
            texts = [(self.split.document(other).path, ids) for other, ids in files]
            header = self.form.repository(name, texts, path)
            example = self.transform(
                tokens,
                room + 1,
                Draws(self.seed, epoch, document, start),
                syntax=self.syntax(document, byte_start, byte_stop),
                whole=whole,
                header=header,
            )
            if not (example.trimmed and files):
                break
            files = self._less(files, example.trimmed)
        others = tuple(other for other, _ in files)
        text = int(np.count_nonzero(header.regions == Region.TEXT))
        return Placed(example, slot, document, start, stop, byte_stop - byte_start, context=others, context_text=text)

    # ---- the plan ----------------------------------------------------------------------------------------------------

    def _all(self) -> "list[Repository]":
        """The repositories of the split, with the files that hold something."""
        if self._repositories is None:
            by_name: dict[str, list[tuple[int, DocumentInfo]]] = {}
            for index in np.flatnonzero(np.asarray(self.split.lengths) > 0).tolist():
                info = self.split.document(index)
                by_name.setdefault(info.repo, []).append((index, info))
            self._repositories = [Repository(name, files) for name, files in sorted(by_name.items())]
        return self._repositories

    def _target(
        self, repository: "Repository", number: int, epoch: int
    ) -> Iterator[tuple[tuple[int, int, int, int, int, bool], int]]:
        """(document, start, stop, byte start, byte stop, whole) of each piece of the target, and its names' slots."""
        document = repository.files[number]
        info = self.split.document(document)
        names = (
            self._served_cost if self._unfit(info) else max(self._served_cost, self._header_size(info.repo, info.path))
        )
        room = self.length - names - Transform.RESERVE
        size = info.tokens
        if size <= room:
            yield (document, 0, size, 0, info.bytes, True), names
            return
        longest = room if len(repository.files) == 1 else max(1, room // 2)
        shortest = min(self.shortest or longest, longest)
        draws = Draws(self.seed, epoch, document, "phase")
        cut = chunk_document(self.split, self.form, document, longest, shortest, draws)
        for piece in range(len(cut.tokens) - 1):
            start, stop = cut.tokens[piece : piece + 2].tolist()
            byte_start, byte_stop = cut.bytes[piece : piece + 2].tolist()
            yield (document, start, stop, byte_start, byte_stop, bool(cut.whole[piece] and cut.whole[piece + 1])), names

    def _fill(
        self, shelf: "Shelf", number: int, taken: int, epoch: int, start: int
    ) -> tuple[list[tuple[int, int]], int]:
        """Context for a target that takes so many slots: (document, tokens of it) in order, and the slots of it all."""
        repository = shelf.repository
        room = self.length - taken
        if self.shortest is not None:
            draws = Draws(self.seed, epoch, repository.files[number], start, "context")
            room = draws.integer(0, room + 1)
        context: list[tuple[int, int]] = []
        if room < SHORTEST_CUT:
            return context, taken
        for other in shelf.candidates(number, lambda: self._imports(repository, number)):
            document = repository.files[other]
            cost, size = self._file_cost(document), int(self.split.lengths[document])
            if cost + size <= room:
                shelf.use(other)
                context.append((document, size))
            else:
                kept = self._tail(document, room - cost)
                if kept < SHORTEST_CUT:
                    break
                shelf.taste(other)
                context.append((document, kept))
            room -= cost + context[-1][1]
            taken += cost + context[-1][1]
            if room < SHORTEST_CUT or context[-1][1] < size:
                break
        return context, taken

    def _imports(self, repository: "Repository", number: int) -> list[int]:
        if number not in repository.imports:
            document = repository.files[number]
            head = self.split.tokens(document, 0, HEAD).tolist()
            text = self.form.tokenizer.decode_bytes(head).decode(errors="ignore")
            info = self.split.document(document)
            repository.imports[number] = imported(text, info.language, info.path, repository.paths)
        return repository.imports[number]

    def _tail(self, document: int, keep: int) -> int:
        """The most tokens up to `keep` after which the document may be cut."""
        if keep <= 0:
            return 0
        for index in range(keep, max(0, keep - 4), -1):
            if self.form.starts_character[self.split.tokens(document, index, index + 1)].all():
                return index
        return 0

    # ---- the header --------------------------------------------------------------------------------------------------

    def _context(self, plan: Plan, piece: int) -> list[tuple[int, np.ndarray]]:
        context = plan.context
        if context is None:
            raise ValueError("the plan is not one of this level")
        places = range(int(context.first[piece]), int(context.first[piece + 1]))
        pairs = ((int(context.document[place]), int(context.stop[place])) for place in places)
        return [(document, self.split.tokens(document, 0, stop)) for document, stop in pairs]

    def _less(self, files: list[tuple[int, np.ndarray]], tokens: int) -> list[tuple[int, np.ndarray]]:
        """The context without at least so many tokens at its front."""
        (document, ids), *rest = files
        keep = character_from(ids, tokens, self.form.starts_character)
        return [(document, ids[keep:]), *rest] if keep < len(ids) else rest

    def _unfit(self, info: DocumentInfo) -> bool:
        """Whether the names of a file are too long for the row, or cannot stand in a header."""
        return "\n" in info.repo + info.path or self._header_size(info.repo, info.path) > LONGEST_NAMES * self.length

    def _header_size(self, name: str, path: str) -> int:
        """Slots of a header without other files."""
        return len(self.form.repository(name, [], path).tokens)

    def _file_cost(self, document: int) -> int:
        """Slots of another file in the header beside its text; a whole row where its path cannot stand there."""
        if document not in self._file_costs:
            path = self.split.document(document).path
            cost = self.length
            if "\n" not in path:
                alone = self.form.repository(SERVED_NAMES[0], [(path, [])], SERVED_NAMES[1])
                cost = len(alone.tokens) - self._served_cost
            self._file_costs[document] = cost
        return self._file_costs[document]


class Repository:
    """The files of one repository: document numbers, folders, paths; `imports` is filled as files are looked at."""

    def __init__(self, name: str, files: list[tuple[int, DocumentInfo]]) -> None:
        self.name = name
        self.files = [document for document, _ in files]
        self.paths = Paths([info.path for _, info in files])
        self.folder_of = [info.path.rpartition("/")[0] for _, info in files]
        self.imports: dict[int, list[int]] = {}


class Shelf:
    """Which files of a repository an epoch has not shown yet, in the epoch's order."""

    def __init__(self, repository: Repository, order: np.ndarray) -> None:
        self.repository = repository
        self._shown = [False] * len(order)
        self._context = [True] * len(order)
        self._any = order.tolist()[::-1]
        self._folders: dict[str, list[int]] = {}
        for number in self._any:
            self._folders.setdefault(repository.folder_of[number], []).append(number)

    def use(self, number: int) -> bool:
        """Takes a file whole; False when it was shown before."""
        fresh = not self._shown[number]
        self._shown[number], self._context[number] = True, False
        return fresh

    def taste(self, number: int) -> None:
        """Takes a part of a file as context: it is no context again, and yet to be shown."""
        self._context[number] = False

    def candidates(self, number: int, imports: Callable[[], list[int]]) -> Iterator[int]:
        """Files that may stand before a target: of its folder, then its imports (asked for when it comes to them), then
        any. The caller uses or tastes each one it is given, or stops."""
        yield from self._free(self._folders[self.repository.folder_of[number]])
        yield from (other for other in imports() if self._context[other])
        yield from self._free(self._any)

    def _free(self, stack: list[int]) -> Iterator[int]:
        while stack:
            if self._context[stack[-1]]:
                yield stack[-1]
            else:
                stack.pop()  # a file that has been context or target never comes back
