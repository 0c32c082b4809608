"""The tree of verbs: which function answers to which words. It is built when asked for, and imports nothing heavy.

A verb parses its arguments, composes a configuration and calls the package that does the work; that package is imported
inside the verb's function, so that `inlay --help` never waits for torch.
"""

from cyclopts import App

from inlay import __version__
from inlay.cli.complete import complete
from inlay.cli.export import export
from inlay.cli.inspect import formats, model, optim, plan, rows, spans, stats
from inlay.cli.judge import evaluate, report
from inlay.cli.make import demo, prepare, train
from inlay.cli.sweep import sweep

HEAVY = frozenset({"demo", "train", "sweep", "evaluate"})
"""Verbs that compute for long, and so want the environment of `inlay.cli.runtime`."""


def build_app() -> App:
    """The command line `inlay`."""
    app = App(
        name="inlay",
        help="Train and judge small fill-in-the-middle code models, and complete with them.",
        help_epilogue="--debug, anywhere on the line, shows the traceback of an error.",
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for place, verb in enumerate((demo, prepare, train, sweep, evaluate, complete, export, report)):
        app.command(verb, sort_key=place)
    inspect = App(name="inspect", sort_key=2, help="Show what a store or a model is made of, and what a run will do.")
    for verb in (model, optim, plan, rows, stats, spans, formats):
        inspect.command(verb)
    app.command(inspect)
    return app
