"""How a file of each language is compiled and run, and where its toolchain lies on this machine.

It decides what of the host a sandbox shows for a language, which limits suit it, and how the end of a program is told
from leaving early. It refuses a toolchain whose folder would show somebody's home. Languages are named as
`inlay.text.document.language_of` names them.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inlay.evaluate.sandbox import guards
from inlay.evaluate.sandbox.program import Program
from inlay.evaluate.sandbox.steps import File

MEBI = 1 << 20

ZIP = (
    "import os,sys,zipfile\n"
    "z=zipfile.ZipFile(sys.stdout.buffer,'w')\n"
    "for r,_,f in os.walk(sys.argv[1]):\n"
    "  for n in f: p=os.path.join(r,n); z.write(p,os.path.relpath(p,sys.argv[1]))\n"
    "z.close()"
)


@dataclass(frozen=True)
class Plan:
    """How one program is built and run; arguments say `{box}` for its folder."""

    file: str
    """Name of the source file."""
    run: tuple[str, ...]
    source: str | None = None
    """What stands in that file, where it is not the program's text alone: its end, or its entry, says something."""
    compile: tuple[str, ...] | None = None
    """Prints what is to be run (diagnostics on standard error); None: the source is run."""
    product: str = "program"
    """Name of what `compile` printed, in the folder of the run."""
    files: tuple[File, ...] = ()
    """Files of ours beside the program's."""
    python: bool = False
    """Whether the runner runs it itself."""


@dataclass(frozen=True)
class Toolchain:
    """A language's tools on this machine."""

    language: str
    plan: Callable[[Program], Plan]
    hello: str
    """A program that passes: a toolchain that cannot run it counts as none."""
    prefixes: tuple[str, ...] = ()
    """Folders beside /usr that a sandbox must show."""
    address_limit: bool = True
    """Whether address space may be limited: node, Java, Go and .NET reserve far more than they use."""
    memory_bytes: int = 0
    """What its runtime needs beside the program's own."""
    processes: int = 0
    """Threads that its runtime starts beside the program's own."""
    compile_seconds: float = 30.0
    compile_memory_bytes: int = 2048 * MEBI
    environment: dict[str, str] = field(default_factory=dict)


# ---- finding ---------------------------------------------------------------------------------------------------------


def base_python() -> tuple[str, str]:
    """The interpreter below any virtual environment, and its prefix."""
    executable = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return executable, os.path.realpath(sys.base_prefix)


def showable(prefix: str) -> bool:
    """Whether a sandbox may show the folder: not the root, a home, or anything that holds a home."""
    home = Path.home().resolve()
    path = Path(prefix).resolve()
    broad = {"/", "/home", "/root", "/etc", "/var", "/tmp", "/opt", "/srv", "/mnt", "/media", "/run", "/proc", "/sys"}
    return str(path) not in broad and path != home and path not in home.parents and path.parent != Path("/home")


def _tool(*names: str) -> tuple[str, tuple[str, ...]] | None:
    """The first of `names` on the path, resolved, and the folders to show for it; None without any."""
    for name in names:
        found = shutil.which(name)
        if found is None:
            continue
        path = os.path.realpath(found)
        if path.startswith(("/usr/", "/bin/")):
            return path, ()
        prefix = os.path.dirname(os.path.dirname(path))
        if showable(prefix):
            return path, (prefix,)
    return None


def _python() -> Toolchain:
    _, prefix = base_python()
    return Toolchain(
        "python",
        lambda program: Plan(program.file or "program.py", ("{box}/" + (program.file or "program.py"),), python=True),
        "assert 1 + 1 == 2\n",
        () if prefix.startswith("/usr/") or prefix == "/usr" else (prefix,),
    )


def _javascript(language: str = "javascript") -> Toolchain | None:
    tool = _tool("node", "nodejs")
    if tool is None:
        return None
    node, prefixes = tool
    typescript = language == "typescript"
    if typescript and not _accepts([node, "--experimental-strip-types", "-e", "0"]):
        return None

    def plan(program: Program) -> Plan:
        module = re.search(r"^\s*(import\s+[\w{*'\"]|export\s+[\w{*])", program.source, re.MULTILINE) is not None
        name = "program" + (".mts" if module else ".cts") if typescript else "program" + (".mjs" if module else ".js")
        options = ["--experimental-strip-types", "--no-warnings"] if typescript else []
        heap = max(64, program.limits.memory_bytes // MEBI)
        run = [node, *options, f"--max-old-space-size={heap}", "--require", "{box}/inlay_guard.cjs"]
        guard = File("inlay_guard.cjs", guards.JAVASCRIPT.encode())
        ending = "" if _prints(program) else guards.JAVASCRIPT_ENDING
        run.append("{box}/" + (program.file or name))
        return Plan(program.file or name, tuple(run), program.source + ending, files=(guard,))

    hello = "const one: number = 1;\n" if typescript else "const one = 1;\nif (one !== 1) throw one;\n"
    return Toolchain(
        language, plan, hello, prefixes, address_limit=False, memory_bytes=256 * MEBI, processes=32 + _cores()
    )


def _c(language: str) -> Toolchain | None:
    tool = _tool(*(("gcc", "clang", "cc") if language == "c" else ("g++", "clang++", "c++")))
    if tool is None:
        return None
    compiler, prefixes = tool
    name = "program.c" if language == "c" else "program.cpp"
    # The guard is C for both: a C++ compiler names functions otherwise.
    options = "-x c" if language == "c" else "-x c++ -std=c++17"

    def plan(program: Program) -> Plan:
        file = program.file or name
        guard = "" if _prints(program) else "-Wl,--wrap=main -x c inlay_guard.c"
        script = f'"$0" -O1 -w -o out {options} "$1" {guard} -lm 1>&2 && exec cat out'
        return Plan(
            file,
            ("{box}/program",),
            compile=("/bin/sh", "-c", script, compiler, file),
            files=(File("inlay_guard.c", guards.C.encode()),),
        )

    return Toolchain(language, plan, "int main() { return 0; }\n", prefixes)


def _rust() -> Toolchain | None:
    tool, linker = _tool("rustc"), _tool("gcc", "clang", "cc")
    if tool is None or linker is None:
        return None
    compiler, prefixes = tool
    if "/usr/" not in compiler[:5]:
        # rustup's `rustc` only points to the toolchain, which lies elsewhere.
        root = _says([shutil.which("rustc") or compiler, "--print", "sysroot"])
        if root is None or not showable(root):
            return None
        compiler, prefixes = f"{root}/bin/rustc", (root,)

    def plan(program: Program) -> Plan:
        file = program.file or "program.rs"
        guard = "" if _prints(program) else "-C link-arg=guard.o -C link-arg=-Wl,--wrap=main"
        script = (
            '"$2" -c -o guard.o inlay_guard.c 1>&2 && "$0" --edition 2021 -A warnings -C debuginfo=0 -C opt-level=1 '
            f'-C linker="$2" {guard} -o out "$1" 1>&2 && exec cat out'
        )
        return Plan(
            file,
            ("{box}/program",),
            compile=("/bin/sh", "-c", script, compiler, file, linker[0]),
            files=(File("inlay_guard.c", guards.C.encode()),),
        )

    return Toolchain("rust", plan, "fn main() {}\n", (*prefixes, *linker[1]), compile_seconds=60.0, processes=0)


def _java() -> Toolchain | None:
    compiler, runtime = _tool("javac"), _tool("java")
    if compiler is None or runtime is None:
        return None
    quiet = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xshare:auto"

    def plan(program: Program) -> Plan:
        public = re.search(r"^\s*public\s+(?:\w+\s+)*(?:class|record|enum|interface)\s+(\w+)", program.source, re.M)
        file = program.file or f"{public[1] if public else 'Main'}.java"
        package = re.search(r"^\s*package\s+([\w.]+)\s*;", program.source, re.M)
        before = program.source[: m.start()] if (m := re.search(r"\bvoid\s+main\s*\(", program.source)) else ""
        classes = re.findall(r"^\s*(?:public\s+|final\s+|abstract\s+)*class\s+(\w+)", before, re.M)
        main = (f"{package[1]}." if package else "") + (classes[-1] if classes else file.removesuffix(".java"))
        heap = f"-Xmx{max(32, program.limits.memory_bytes // MEBI)}m"
        flags = " ".join(f"-J{one}" for one in quiet.split())
        guard = "" if _prints(program) else "InlayGuard.java"
        python = base_python()[0]
        script = f'"$0" {flags} -nowarn -encoding UTF-8 -d classes "$1" {guard} 1>&2 && exec "$2" -S -c "$3" classes'
        run = [runtime[0], *quiet.split(), heap, "-Xss16m", "-ea", "-cp", "{box}/program.jar"]
        return Plan(
            file,
            (*run, *(("InlayGuard",) if guard else ()), main),
            compile=("/bin/sh", "-c", script, compiler[0], file, python, ZIP),
            product="program.jar",
            files=(File("InlayGuard.java", guards.JAVA.encode()),),
        )

    return Toolchain(
        "java",
        plan,
        "public class Main { public static void main(String[] a) { assert 1 + 1 == 2; } }\n",
        (*compiler[1], *runtime[1]),
        address_limit=False,
        memory_bytes=384 * MEBI,
        processes=48 + 2 * _cores(),
    )


def _go() -> Toolchain | None:
    tool = _tool("go")
    if tool is None:
        return None
    root = _says([tool[0], "env", "GOROOT"])
    if root is None or not (root.startswith("/usr/") or showable(root)):
        return None

    def plan(program: Program) -> Plan:
        file = program.file or "main.go"
        guard, source = ("", program.source) if _prints(program) else ("inlay_guard.go", guards.go(program.source))
        script = f'"$0" build -o out "$1" {guard} 1>&2 && exec cat out'
        return Plan(
            file,
            ("{box}/program",),
            source,
            ("/bin/sh", "-c", script, tool[0], file),
            files=(File("inlay_guard.go", guards.GO.encode()),),
        )

    return Toolchain(
        "go",
        plan,
        "package main\n\nfunc main() {}\n",
        (*tool[1], *(() if root.startswith("/usr/") else (root,))),
        address_limit=False,
        memory_bytes=64 * MEBI,
        processes=32 + _cores(),
        compile_seconds=120.0,
        environment={
            "GOROOT": root,
            "GOCACHE": "{box}/cache",
            "GOPATH": "{box}/path",
            "GOTOOLCHAIN": "local",
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
        },
    )


def _csharp() -> Toolchain | None:
    compiler, runtime = _tool("mcs"), _tool("mono")
    if compiler is None or runtime is None:
        return None
    found = shutil.which("mcs")  # a shell script that starts mono on the compiler

    def plan(program: Program) -> Plan:
        file = program.file or "Program.cs"
        guard = "" if _prints(program) else "-main:InlayGuard InlayGuard.cs"
        script = f'"$0" -nologo -out:out.exe "$1" {guard} 1>&2 && exec cat out.exe'
        return Plan(
            file,
            (runtime[0], "--debug", "{box}/program.exe"),
            compile=("/bin/sh", "-c", script, found or compiler[0], file),
            product="program.exe",
            files=(File("InlayGuard.cs", guards.CSHARP.encode()),),
        )

    return Toolchain(
        "csharp",
        plan,
        "class Program { static void Main() { } }\n",
        (*compiler[1], *runtime[1]),
        address_limit=False,
        memory_bytes=256 * MEBI,
        processes=32 + _cores(),
        compile_seconds=60.0,
    )


def _bash() -> Toolchain | None:
    tool = _tool("bash")
    if tool is None:
        return None

    def plan(program: Program) -> Plan:
        file = program.file or "program.sh"
        source = program.source + ("" if _prints(program) else guards.BASH_ENDING)
        return Plan(file, (tool[0], "--norc", "--noprofile", "-c", guards.BASH, "bash", "{box}/" + file), source)

    return Toolchain("bash", plan, "[ 1 = 1 ]\n", tool[1])


_FINDERS: dict[str, Callable[[], Toolchain | None]] = {
    "python": _python,
    "javascript": _javascript,
    "typescript": functools.partial(_javascript, "typescript"),
    "java": _java,
    "c": functools.partial(_c, "c"),
    "cpp": functools.partial(_c, "cpp"),
    "go": _go,
    "rust": _rust,
    "csharp": _csharp,
    "bash": _bash,
}
LANGUAGES = tuple(_FINDERS)


@functools.cache
def toolchain(language: str) -> Toolchain | None:
    """The language's tools, or None where this machine has none (or the language is not known here)."""
    finder = _FINDERS.get(language)
    return None if finder is None else finder()


def _prints(program: Program) -> bool:
    """Whether its output is what counts: then its end needs not be told."""
    return program.cases[0].expected is not None


def _cores() -> int:
    return os.cpu_count() or 1


def _says(command: list[str]) -> str | None:
    """The output of a tool of the host, stripped; None when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return os.path.realpath(done.stdout.strip()) if done.stdout.strip() else None


def _accepts(command: list[str]) -> bool:
    """Whether a tool of the host runs with these options."""
    try:
        return subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
