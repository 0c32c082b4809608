"""The task `cross_code_eval`: the rest of a statement that needs another file of the repository.

It decides what is read of the benchmark's rows (one JSON-lines file a language and way of retrieval) and keeps its own
reading of answers: cut to the first complete statement, comments aside, with exact match, edit similarity and matches
of identifiers. The benchmark asks left to right; here the text behind the gap (`right_context`) is the suffix, as its
rows have it, and the retrieved pieces of other files are context. It refuses languages the benchmark does not have.
"""

from typing import ClassVar, Literal

from inlay.config import BadInput
from inlay.evaluate.cross_file_rules import (
    STATEMENT_LANGUAGES,
    f1_of_sets,
    first_statement,
    identifiers,
    indel_similarity,
    same_lines,
    without_comments,
)
from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.rows import Row, read_rows, unique
from inlay.evaluate.task import ContextFile, Example, Examples, Place, TaskConfig, tasks
from inlay.text.document import language_of

_SOURCE = "after its cut and without comments (amazon-science/cceval)"
_ALIKE = {"tsx": "typescript"}


@tasks.register
class CrossCodeEvalConfig(TaskConfig):
    """CrossCodeEval: line completion with context from other files; Python, Java, C# and TypeScript."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("cce_exact", "CCE EM", f"lines equal, blanks at their ends aside, {_SOURCE}", "high"),
        Metric("cce_edit", "CCE ES", f"similarity by insertions and deletions, stripped, {_SOURCE}", "high"),
        Metric("cce_id_exact", "CCE ID EM", f"identifiers equal in order, {_SOURCE}", "high"),
        Metric("cce_id_f1", "CCE ID F1", f"F1 of the sets of identifiers, mean over examples, {_SOURCE}", "high"),
    )
    POST: ClassVar[str] = (
        "the first complete statement: in Python up to the first line end where prefix and answer parse, elsewhere up"
        " to the first ; { or } (amazon-science/cceval scripts/eval_utils.py)"
    )
    CITATION: ClassVar[str] = "Ding et al. 2023, CrossCodeEval, arXiv 2310.11248"

    kind: Literal["cross_code_eval"] = "cross_code_eval"
    retrieval: str = "line_completion_rg1_bm25"
    """Which file of a language's folder is read: the benchmark has one for each way in which context was retrieved."""
    context: Literal["retrieved", "none"] = "retrieved"
    """Whether the retrieved pieces are shown, or the file alone (the benchmark's baseline)."""

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        """The rows in file order. `place` names a file, or a folder in which the files of `retrieval` are read."""
        rows = read_rows(place, "cross_code_eval", f"{self.retrieval}.json*")
        items = [(self._example(row), row) for row in rows.rows]
        unique((example.id, row) for example, row in items)
        listed = [example for example, _ in items]
        return Examples(listed[:limit], len(listed), rows.source, rows.hash, rows.sample)

    def postprocess(self, example: Example, text: str) -> str:
        return first_statement(example.prefix, text, example.details["rules"])

    def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
        rules = example.details["rules"]
        answer = without_comments(self.postprocess(example, text))
        gold = without_comments(example.middle)
        ours, theirs = identifiers(answer, rules), identifiers(gold, rules)
        return {
            "cce_exact": share(same_lines(answer, gold)),
            "cce_edit": (indel_similarity(answer.strip(), gold.strip()), 1.0),
            "cce_id_exact": share(ours == theirs),
            "cce_id_f1": (f1_of_sets(ours, theirs), 1.0),
        }

    def _example(self, row: Row) -> Example:
        about = row.row("metadata")
        path = about.filled("file")
        language = language_of(path)
        rules = _ALIKE.get(language or "", language or "")
        if rules not in STATEMENT_LANGUAGES:
            raise BadInput(
                f"{about.where}: '{path}' is in {language or 'an unknown language'}; the benchmark has"
                f" {', '.join(STATEMENT_LANGUAGES)}"
            )
        gold = row.text("groundtruth")
        if not gold.strip():
            row.refuse("groundtruth", "is empty")
        return Example(
            id=about.filled("task_id"),
            group=about.filled("repository"),
            category="statement",
            prefix=row.text("prompt"),
            middle=gold,
            suffix=row.text_or("right_context", ""),
            path=path,
            language=language,
            context=self._context(row),
            repo=about.filled("repository"),
            details={"rules": rules},
        )

    def _context(self, row: Row) -> tuple[ContextFile, ...]:
        # Files of the baseline have no such field.
        if self.context == "none" or row.data.get("crossfile_context") is None:
            return ()
        pieces = row.row("crossfile_context").rows("list")
        return tuple(ContextFile(piece.text("filename"), piece.text("retrieved_chunk")) for piece in pieces)
