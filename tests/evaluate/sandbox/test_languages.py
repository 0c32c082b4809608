"""One program of each sort in each language that this machine has; and what of the host a toolchain may show."""

from pathlib import Path

import pytest

from inlay.evaluate.sandbox import Case, Limits, Program
from inlay.evaluate.sandbox.languages import LANGUAGES, showable, toolchain

SLOW = Limits(seconds=60.0)
HEAD = {"c": "#include <stdlib.h>\n#include <stdio.h>\n#include <assert.h>\n"}
HEAD["cpp"] = HEAD["c"].replace("<stdio.h>", "<iostream>")
JAVA = """import java.util.*;
class Problem {{
  static int f() {{ return 2; }}
  public static void main(String[] a) {{ {} }}
}}
"""
RUST_ECHO = """fn main() {
    let mut s = String::new();
    std::io::stdin().read_line(&mut s).unwrap();
    println!("{}", s.trim().parse::<i32>().unwrap() + 1);
}
"""
C_MEMORY = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main() {
  for (;;) { char *p = malloc(1 << 24); if (!p) { perror(0); exit(1); } memset(p, 1, 1 << 24); }
}
"""

PASSES = {
    "python": "assert 1 + 1 == 2",
    "javascript": "const assert = require('node:assert');\nPromise.resolve(2).then((two) => assert.equal(two, 2));",
    "java": JAVA.format("assert f() == 2;"),
    "c": HEAD["c"] + "int main() { assert(1 + 1 == 2); return 0; }",
    "cpp": HEAD["cpp"] + "int main() { assert(1 + 1 == 2); }",
    "rust": "fn main() { assert_eq!(1 + 1, 2); }",
    "bash": "[ $((1 + 1)) = 2 ]",
}
WRONG = {
    "python": "assert 1 + 1 == 3",
    "javascript": "require('node:assert').deepEqual([1], [2]);",
    "java": JAVA.format("if (f() != 3) throw new AssertionError();"),
    "c": HEAD["c"] + "int main() { assert(1 + 1 == 3); return 0; }",
    "cpp": HEAD["cpp"] + "int main() { assert(1 + 1 == 3); }",
    "rust": "fn main() { assert_eq!(1 + 1, 3); }",
}
LEAVES = {
    "python": "exit(0)\nassert 0",
    "javascript": "process.exit(0);\nthrow 1;",
    "java": JAVA.format("System.exit(0); assert false;"),
    "c": HEAD["c"] + "int main() { exit(0); assert(0); }",
    "cpp": HEAD["cpp"] + "int main() { std::exit(0); assert(0); }",
    "rust": "fn main() { std::process::exit(0); }",
    "bash": "exit 0\nfalse",
}
BROKEN = {
    "python": "def f(:",
    "javascript": "function ( {",
    "java": JAVA.format("int x = ;"),
    "c": "int main( {",
    "cpp": "int main( {",
    "rust": "fn main( {",
    "bash": "if true; then",
}
FAILS = {
    "python": "raise KeyError(1)",
    "javascript": "null.x;",
    "java": JAVA.format("new ArrayList<Integer>().get(0);"),
    "c": "int main() { return 3; }",
    "cpp": "int main() { return 3; }",
    "rust": 'fn main() { let v: Vec<i32> = vec![]; println!("{}", v[v.len()]); }',
    "bash": "set -e\nfalse\ntrue",
}
ECHO = {
    "python": "print(int(input()) + 1)",
    "javascript": "console.log(Number(require('fs').readFileSync(0, 'utf8')) + 1);",
    "java": JAVA.format("System.out.println(new Scanner(System.in).nextInt() + 1); System.exit(0);"),
    "c": HEAD["c"] + 'int main() { int x; scanf("%d", &x); printf("%d\\n", x + 1); exit(0); }',
    "cpp": HEAD["cpp"] + "int main() { int x; std::cin >> x; std::cout << x + 1; }",
    "rust": RUST_ECHO,
    "bash": "read x; echo $((x + 1)); exit 0",
}
QUICK = ("python", "javascript", "c", "bash")


def each(programs):
    return [
        pytest.param(language, source, marks=() if language in QUICK else pytest.mark.slow, id=language)
        for language, source in programs.items()
    ]


@pytest.fixture
def run(safe):
    def run(language, source, *cases):
        if not safe.available(language):
            pytest.skip(f"no {language} on this machine")
        return safe.run(Program(language, source, cases or (Case(),), SLOW))

    return run


@pytest.mark.parametrize(("language", "source"), each(PASSES))
def test_passes(run, language, source):
    outcome = run(language, source)
    assert (outcome.cause, outcome.compiled) == ("passed", True), outcome


@pytest.mark.parametrize(("language", "source"), each(WRONG))
def test_wrong(run, language, source):
    outcome = run(language, source)
    assert (outcome.cause, outcome.compiled) == ("wrong", True), outcome
    assert "ssert" in outcome.detail


@pytest.mark.parametrize(("language", "source"), each(LEAVES))
def test_leaving_before_the_tests(run, language, source):
    assert run(language, source).cause == "left_early"


@pytest.mark.parametrize(("language", "source"), each(BROKEN))
def test_does_not_compile(run, language, source):
    outcome = run(language, source)
    assert (outcome.cause, outcome.compiled) == ("compile", False), outcome
    assert outcome.detail


@pytest.mark.parametrize(("language", "source"), each(FAILS))
def test_fails(run, language, source):
    outcome = run(language, source)
    assert (outcome.cause, outcome.compiled) == ("error", True), outcome


@pytest.mark.parametrize(("language", "source"), each(ECHO))
def test_output_decides_where_it_is_expected(run, language, source):
    assert run(language, source, Case("41\n", "42")).passed
    assert run(language, source, Case("41\n", "42"), Case("1\n", "3")).cause == "wrong"


def test_crash(run):
    assert run("c", "int main() { int *p = 0; *p = 1; return 0; }").cause == "crash"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("javascript", "const a = [];\nwhile (true) a.push(new Array(1e6).fill(1.5));"),
        ("java", JAVA.format("List<long[]> l = new ArrayList<>(); while (true) l.add(new long[1 << 20]);")),
        ("c", C_MEMORY),
        ("rust", "fn main() { let mut v = vec![]; loop { v.push(vec![1u8; 1 << 24]); } }"),
    ],
)  # fmt: skip
def test_memory(run, language, source):
    assert run(language, source).cause == "memory"


def test_a_javascript_module(run):
    assert run("javascript", "import assert from 'node:assert';\nassert.equal(1, 1);\nexport const x = await 2;").passed
    outcome = run("javascript", "import assert from 'node:assert';\nlet = ;")
    assert (outcome.cause, outcome.compiled) == ("compile", False)


def test_javascript_status_and_rejections(run):
    assert run("javascript", "process.exitCode = 2;").cause == "error"
    assert run("javascript", "Promise.reject(new Error('no'));").cause == "error"
    assert run("javascript", "#!/usr/bin/env node\nmodule.exports = 1;").passed


def test_a_compiler_sees_nothing_of_the_host_either(run, tmp_path):
    (tmp_path / "secret.h").write_text("int secret = 4711;\n")
    outcome = run("c", f'#include "{tmp_path}/secret.h"\nint main() {{ return 0; }}')
    assert outcome.cause == "compile"


@pytest.mark.slow
def test_java_finds_its_main_class(run):
    assert run("java", "package a.b;\npublic class Deep { public static void main(String[] a) { } }").passed
    assert run("java", "class Helper { }\nclass Start { static public void main(String... a) { } }").passed


def test_homes_and_roots_are_not_shown():
    home = Path.home()
    for folder in ("/", "/home", "/home/somebody", "/etc", "/tmp", str(home), str(home.parent), "/usr/.."):
        assert not showable(folder)
    assert showable(str(home / ".pyenv" / "versions" / "3.11.7"))
    assert showable("/opt/python")


def test_every_language_has_a_finder_that_never_raises(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for language in LANGUAGES:
        found = toolchain.__wrapped__(language)
        assert (found is not None) == (language == "python")
    assert toolchain.__wrapped__("cobol") is None
