"""How this project starts a Python of its own: without the folder it was started in, and never longer than its parent.

`python -m` and `python -c` put the current folder first in the path, and `multiprocessing` hands that on: a file called
`json.py` in somebody's project would be run by each worker. Every process is therefore started with `-P` through
`python_command`, in `python_environment`; `leave_folder` takes the folder out of this process's own path.

This module stands below all packages and imports at its head only what every interpreter has already imported: with
plain `python -m inlay` it is read while the folder still is in the path.
"""

import os
import sys

WATCH_SECONDS = 0.5
"""How often a child looks whether its parent still lives."""
SAFE = "PYTHONSAFEPATH"


def python_command(*arguments: str) -> list[str]:
    """This interpreter with `arguments` (`-m MODULE ...`), without the current folder in its path."""
    return [sys.executable, "-P", *arguments]


def safe_path() -> list[str]:
    """What this process finds modules by, the current folder left out where `python -m` has put it."""
    return [entry for place, entry in enumerate(sys.path) if not (_is_folder(place, entry) or entry == "")]


def python_environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a child that is to find the same modules, and its own children too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(safe_path()), SAFE: "1", **(more or {})}


def leave_folder() -> None:
    """Takes the current folder out of the path of this process and of all Pythons that it starts.

    The folder that this package itself was found in stays, behind all others.
    """
    sys.path[:] = safe_path()
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if home not in sys.path:
        sys.path.append(home)
    os.environ[SAFE] = "1"


def end_with_parent() -> None:
    """Ends this process, at the latest a second after its parent is gone, however that ended.

    To be called once, early. A C function that holds the interpreter's lock meanwhile delays it.
    """
    import threading

    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            pause.wait(WATCH_SECONDS)
        os._exit(1)

    pause = threading.Event()
    threading.Thread(target=watch, name="parent", daemon=True).start()


def _is_folder(place: int, entry: str) -> bool:
    """Whether an entry of the path is the current folder, put there by `python -m`; who names it in PYTHONPATH means
    it."""
    return place == 0 and not _started_safely() and os.path.isabs(entry) and entry == _started_in()


def _started_safely() -> bool:
    return bool(sys.flags.safe_path)


def _started_in() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
