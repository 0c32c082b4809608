"""Data files of a Hugging Face dataset: from the local cache where all of them are there, else fetched.

It fetches data files alone, never a script, and refuses in one line, with what to do by hand, when the hub cannot be
reached. A cache that an interrupted download left incomplete is never read as if it were whole.
"""

import fnmatch
from pathlib import Path

from inlay.config import BadInput

HUB = "hf:"
_COMMIT = 12


def hub_files(name: str, endings: tuple[str, ...], pattern: str | None) -> tuple[list[tuple[Path, str]], str]:
    """The files of `hf:OWNER/NAME[/FILE-GLOB]`, each with its name in the dataset, and the source for people.

    Without a glob these are all files with one of `endings` whose name matches `pattern`. Raises BadInput.
    """
    owner, _, rest = name.removeprefix(HUB).partition("/")
    dataset, _, glob = rest.partition("/")
    if not owner or not dataset:
        raise BadInput(f"'{name}' does not name a dataset: write hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    repo = f"{owner}/{dataset}"
    if glob and not any(sign in glob for sign in "*?["):
        # A folder's name stands for all in it.
        wanted = [glob] if glob.endswith(endings) else [f"{glob.rstrip('/')}/*"]
    elif glob:
        wanted = [glob]
    else:
        wanted = [f"*{ending}" for ending in endings] if pattern is None else [pattern, f"*/{pattern}"]
    root = _snapshot(repo, wanted)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    files = [(root / one, one) for one in names if any(fnmatch.fnmatch(one, pattern) for pattern in wanted)]
    return files, f"{HUB}{repo}{f'/{glob}' if glob else ''} at revision {root.name[:_COMMIT]}"


def _snapshot(repo: str, wanted: list[str]) -> Path:
    """The local folder of the dataset's newest revision that is known, with all files that are wanted."""
    from huggingface_hub import errors, snapshot_download

    if hasattr(errors, "IncompleteSnapshotError"):
        # Older libraries give an incomplete cache as if it were whole: with them the hub is asked first.
        try:
            found = snapshot_download(repo, repo_type="dataset", allow_patterns=wanted, local_files_only=True)
            return Path(found)
        except (OSError, ValueError):
            pass
    try:
        return Path(snapshot_download(repo, repo_type="dataset", allow_patterns=wanted))
    except errors.HFValidationError:
        raise BadInput(f"'{HUB}{repo}' is no dataset's name: write hf:OWNER/NAME") from None
    except (errors.RepositoryNotFoundError, errors.GatedRepoError):
        raise BadInput(
            f"the hub has no dataset '{repo}' that can be read without more rights: check the name, or log in"
        ) from None
    except Exception as error:
        # Each transport of the library has exceptions of its own; all of them mean that it was not fetched.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadInput(
            f"cannot fetch the dataset '{repo}' ({type(error).__name__}: {reason}): download {' or '.join(wanted)} of"
            f" https://huggingface.co/datasets/{repo} by hand and name the file or folder instead"
        ) from error
