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

GO = 'package main\n\nimport (\n\t"fmt"\n\t"os"\n)\n\nvar _, _ = fmt.Print, os.Exit\n\nfunc main() {{ {} }}\n'
CSHARP = "class Problem {{ static void Main(string[] all) {{ {} }} }}"

PASSES = {
    "python": "assert 1 + 1 == 2",
    "javascript": "const assert = require('node:assert');\nPromise.resolve(2).then((two) => assert.equal(two, 2));",
    "java": JAVA.format("assert f() == 2;"),
    "c": HEAD["c"] + "int main() { assert(1 + 1 == 2); return 0; }",
    "cpp": HEAD["cpp"] + "int main() { assert(1 + 1 == 2); }",
    "rust": "fn main() { assert_eq!(1 + 1, 2); }",
    "bash": "[ $((1 + 1)) = 2 ]",
    "go": GO.format(""),
    "csharp": CSHARP.format(""),
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
    "go": GO.format("os.Exit(0); panic(1)"),
    "csharp": CSHARP.format("System.Environment.Exit(0); throw new System.Exception();"),
}
HIDES = [
    ("python", "import threading\ndef test(): assert 1 == 2\nthreading.Thread(target=test).start()"),
    ("python", "import threading, time\ndef test(): time.sleep(0.05); assert 0\nthreading.Thread(target=test).start()"),
    (
        "python",
        "import concurrent.futures as f\nwith f.ThreadPoolExecutor() as p: p.submit(int).result()\nraise SystemExit",
    ),
    ("bash", "return 0\n[ 1 = 2 ]"),
    ("bash", "trap 'return 0' ERR\n[ 1 = 2 ]\ntrue"),
    ("bash", "trap 'exit 0' ERR\n[ 1 = 2 ]\ntrue"),
    ("bash", "trap 'exit 0' EXIT\nset -e\n[ 1 = 2 ]"),
    ("bash", "trap 'exit 0' EXIT\n[ 1 = 2 ]"),
    ("bash", "exec true\n[ 1 = 2 ]"),
    ("javascript", "return;\nthrow new Error('no');"),
    ("javascript", "process.on('uncaughtException', () => {});\nthrow new Error('no');"),
    ("javascript", "process.on('unhandledRejection', () => {});\nPromise.reject(new Error('no'));"),
    ("javascript", "process.setUncaughtExceptionCaptureCallback(() => {});\nsetTimeout(() => { throw 1; });"),
    ("javascript", "process.on('exit', () => { process.exitCode = 0; });\nthrow new Error('no');"),
    ("javascript", "const solve = () => new Promise(() => {});\n(async () => { await solve(); throw 1; })();"),
    ("javascript", "new Promise(() => {}).then(() => { throw 1; });"),
    ("javascript", "process.on('beforeExit', () => process.exit(0));"),
    ("javascript", "setTimeout(() => process.exit(0));\nsetTimeout(() => { throw 1; }, 50);"),
    ("javascript", "const test = require('node:test');\ntest('never', () => new Promise(() => {}));"),
    ("javascript", "import 'node:fs';\nawait new Promise(() => {});\nthrow 1;"),
    ("javascript", "import 'node:fs';\nnew Promise(() => {}).then(() => { throw 1; });"),
    ("c", "#include <pthread.h>\n#include <assert.h>\nint main() { pthread_exit(0); assert(0); }"),
    ("c", '#include <err.h>\n#include <assert.h>\nint main() { errx(0, "done"); assert(0); }'),
    ("c", "#include <stdlib.h>\nint main() { quick_exit(0); }"),
    ("c", "#include <unistd.h>\nint main() { _exit(0); }"),
    ("c", "#include <stdlib.h>\nvoid (*volatile leave)(int) = exit;\nint main() { leave(0); }"),
    ("c", '#include <unistd.h>\nint main() { execl("/bin/true", "true", (char *) 0); }'),
    ("c", "#include <unistd.h>\nint main() { if (fork()) _exit(0); return 0; }"),
    ("c", "#include <threads.h>\nint main() { thrd_exit(0); }"),
    ("cpp", "#include <thread>\n#include <cstdlib>\nint main() { std::thread([] { std::exit(0); }).join(); }"),
    ("rust", "fn main() { std::thread::spawn(|| std::process::exit(0)).join().unwrap(); panic!(); }"),
    ("java", JAVA.format("new Thread(() -> { assert false; }).start();")),
    (
        "java",
        JAVA.format("new Thread(() -> { try { Thread.sleep(99); } catch (Exception e) { } assert false; }).start();"),
    ),
    (
        "java",
        JAVA.format(
            "Thread.setDefaultUncaughtExceptionHandler((t, e) -> { }); new Thread(() -> { assert false; }).start();"
        ),
    ),
    ("java", JAVA.format("new Thread(() -> { System.exit(0); }).start();")),
    ("java", JAVA.format("Runtime.getRuntime().halt(0);")),
    ("go", GO.format("defer os.Exit(0); panic(1)")),
    ("go", GO.format("done := make(chan int); go func() { os.Exit(0) }(); <-done; panic(1)")),
    (
        "csharp",
        CSHARP.format("var t = new System.Threading.Thread(() => System.Environment.Exit(0)); t.Start(); t.Join();"),
    ),
]
"""Ordinary code that leaves with status 0 before its tests came to their end, or hides that one of them failed."""
KEEPS = [
    ("python", "import threading\nt = threading.Thread(target=lambda: 1)\nt.start()\nt.join()"),
    ("python", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"),
    ("python", "import threading\nthreading.Thread(target=exit).start()"),
    ("bash", "trap 'rm -f x' EXIT\nf() { return 1; }\nf || true\n[ 1 = 1 ] # a comment \\"),
    ("bash", "cat > x <<'END'\nreturn 0\nEND\n[ -s x ] && true \\\n"),
    ("bash", "set -euo pipefail\ntrap 'echo no' ERR\n(exit 3) || true\n[ 1 = 1 ]"),
    ("javascript", "Promise.race([new Promise(() => {}), 1]).then((one) => { if (one !== 1) throw one; });"),
    ("javascript", "const never = new Promise(() => {});\nsetTimeout(() => {}, 5) // the end"),
    ("javascript", "const t = require('timers/promises');\n(async () => { await t.setTimeout(5);"
     " await Promise.all([1, 2]); await Promise.allSettled([Promise.reject(1)]);"
     " for await (const x of (async function* () { yield 1; })()) ; })();"),
    ("javascript", "const test = require('node:test');\ntest('is', async () => { await 1; });"),
    ("javascript", "process.on('exit', () => {});\nPromise.reject(1).catch(() => {});"),
    ("c", "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n"
     "int main() { if (!fork()) exit(3); int s; wait(&s); return WEXITSTATUS(s) != 3; }"),
    ("c", "#include <unistd.h>\n#include <sys/wait.h>\nint main() { if (fork()) wait(0); return 0; }"),
    ("java", JAVA.format("Thread t = new Thread(() -> { }); t.start(); try { t.join(); } catch (Exception e) { }")),
    ("java", JAVA.format("Thread t = new Thread(() -> { while (true); }); t.setDaemon(true); t.start();")),
    ("csharp", "using System.Threading.Tasks;\n"
     "class P { static async Task<int> Main() { await Task.Yield(); return 0; } }"),
]  # fmt: skip
"""Code that comes to its end in a roundabout way."""
BROKEN = {
    "python": "def f(:",
    "javascript": "function ( {",
    "java": JAVA.format("int x = ;"),
    "c": "int main( {",
    "cpp": "int main( {",
    "rust": "fn main( {",
    "bash": "if true; then",
    "go": GO.format("x := ;"),
    "csharp": CSHARP.format("int x = ;"),
}
FAILS = {
    "python": "raise KeyError(1)",
    "javascript": "null.x;",
    "java": JAVA.format("new ArrayList<Integer>().get(0);"),
    "c": "int main() { return 3; }",
    "cpp": "int main() { return 3; }",
    "rust": 'fn main() { let v: Vec<i32> = vec![]; println!("{}", v[v.len()]); }',
    "bash": "set -e\nfalse\ntrue",
    "go": GO.format('panic("no")'),
    "csharp": CSHARP.format("throw new System.Exception();"),
}
ECHO = {
    "python": "print(int(input()) + 1)",
    "javascript": "console.log(Number(require('fs').readFileSync(0, 'utf8')) + 1);",
    "java": JAVA.format("System.out.println(new Scanner(System.in).nextInt() + 1); System.exit(0);"),
    "c": HEAD["c"] + 'int main() { int x; scanf("%d", &x); printf("%d\\n", x + 1); exit(0); }',
    "cpp": HEAD["cpp"] + "int main() { int x; std::cin >> x; std::cout << x + 1; }",
    "rust": RUST_ECHO,
    "bash": "read x; echo $((x + 1)); exit 0",
    "go": GO.format("var x int; fmt.Scan(&x); fmt.Println(x + 1); os.Exit(0)"),
    "csharp": CSHARP.format("System.Console.WriteLine(int.Parse(System.Console.ReadLine()) + 1);"),
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


def numbered(programs):
    marks = {language: () if language in QUICK else pytest.mark.slow for language, _ in programs}
    return [
        pytest.param(language, source, marks=marks[language], id=f"{language}-{number}")
        for number, (language, source) in enumerate(programs)
    ]


@pytest.mark.parametrize(("language", "source"), numbered(HIDES))
def test_code_that_hides_what_failed_does_not_pass(run, language, source):
    outcome = run(language, source)
    assert outcome.verdict == "failed", outcome
    assert outcome.compiled is not False, outcome
    assert outcome.cause in ("left_early", "wrong", "error"), outcome


@pytest.mark.parametrize(("language", "source"), numbered(KEEPS))
def test_code_that_ends_in_a_roundabout_way_passes(run, language, source):
    assert run(language, source).cause == "passed"


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
