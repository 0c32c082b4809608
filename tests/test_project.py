"""The project's own files: what is installed is what is declared, locked without a host name, and shipped whole."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import inlay

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Direct inputs of the lock that the package does not import: they build it, or torch needs them.
EXTRA = {"hatchling", "filelock", "sympy", "networkx", "fsspec", "typing-extensions", "setuptools"}


def requirements(path: str) -> dict[str, str]:
    """Name to version range of a requirements input."""
    found = {}
    for line in (ROOT / path).read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            name = re.match(r"[A-Za-z0-9_.-]+", line)
            assert name is not None, line
            found[name[0].lower()] = line[name.end() :].strip()
    return found


def locked(path: str) -> dict[str, set[str]]:
    """Name to pinned versions of a lock (several where the Python version decides)."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\;]+)", (ROOT / path).read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_the_package_declares_what_the_lock_holds() -> None:
    declared = {re.split(r"[<>=]", line)[0]: line for line in PROJECT["project"]["dependencies"]}
    inputs = requirements("requirements.in")
    assert set(declared) - {"torch"} == set(inputs) - EXTRA
    for name, line in declared.items():
        if name != "torch":
            assert line == f"{name}{inputs[name]}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_is_pinned_hashed_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    names = locked(lock)
    assert set(requirements(lock.replace(".lock", ".in"))) <= set(names)
    assert not [name for name in names if re.match(r"torch|triton|nvidia|cuda", name)]
    assert not re.search(r"https?:|index-url|find-links|@ |\bfile:", text)
    entries = re.split(r"\n(?=\S)", text)
    pinned = [entry for entry in entries if re.match(r"[A-Za-z0-9]", entry)]
    assert len(pinned) == sum(map(len, names.values()))
    assert all("--hash=sha256:" in entry for entry in pinned)


def test_the_development_lock_agrees_with_the_core() -> None:
    core, development = locked("requirements.lock"), locked("requirements-dev.lock")
    assert {name: development.get(name) for name in core} == core


def test_the_wheel_ships_every_yaml_and_template() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    shipped = {Path(file.distribution_path) for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    source = Path(inlay.__file__).parent
    endings = (".yaml", ".jinja", ".html", ".jsonl", ".fim")
    data = {path.relative_to(source.parent) for path in source.rglob("*") if path.suffix in endings}
    assert data
    assert data <= shipped
    assert Path("inlay/cli/main.py") in shipped


def test_the_script_is_there() -> None:
    module, _, function = PROJECT["project"]["scripts"]["inlay"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_licence_and_python_range() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert "3.11" in (ROOT / "Makefile").read_text()


def test_downloads_say_what_they_do() -> None:
    """Behind a slow registry a silent pip looks as if it hung."""
    text = (ROOT / "Makefile").read_text()
    assert "--quiet" not in next(line for line in text.splitlines() if line.startswith("PIP :="))


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("ci", ["", "true"])
def test_pip_takes_the_options_that_make_gives_it(ci: str) -> None:
    """Also those of continuous integration, which nobody sees at home: pip's own parser is asked."""
    pytest.importorskip("pip")
    show = ["make", "--silent", "--eval=show-pip: ; @echo $(PIP)", "show-pip"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS", "MAKEOVERRIDES")
    }
    environment |= {"CI": ci} if ci else {}
    words = subprocess.run(show, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert words[1:3] == ["-m", "pip"]
    assert ("off" in words) == bool(ci)
    done = subprocess.run([sys.executable, *words[1:], "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
