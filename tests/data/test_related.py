"""Imports: small repositories in each language family, and what a reader would say their files import."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.data.related import _FINDERS, Paths, imported

PYTHON = [
    "src/app/__init__.py",
    "src/app/core.py",
    "src/app/io/read.py",
    "src/app/io/__init__.py",
    "tests/core.py",
    "main.py",
]
SCRIPT = ["web/app.ts", "web/lib/index.ts", "web/lib/table.tsx", "web/data.json", "util.js", "web/util.js"]
CPP = ["src/main.cpp", "src/table.h", "include/acme/map.hpp", "other/table.h"]
GO = ["cmd/main.go", "internal/store/open.go", "internal/store/close.go", "store/x.go"]
JAVA = [
    "src/main/java/org/acme/App.java",
    "src/main/java/org/acme/io/Reader.java",
    "src/test/java/org/acme/io/Reader.java",
]
RUST = ["src/lib.rs", "src/table.rs", "src/io/mod.rs", "src/io/read.rs", "src/table/row.rs"]
RUBY = ["lib/acme.rb", "lib/acme/table.rb", "spec/helper.rb", "spec/table_spec.rb"]
PHP = ["public/index.php", "public/config.php", "src/Io/Reader.php", "src/App.php"]

CASES = [
    (
        "python",
        PYTHON,
        "main.py",
        "import os, app.core\nfrom app.io import read\n",
        ["src/app/core.py", "src/app/io/read.py", "src/app/io/__init__.py"],
    ),
    (
        "python",
        PYTHON,
        "src/app/core.py",
        "from . import io\nfrom .io.read import (\n    lines,\n)\n",
        ["src/app/io/__init__.py", "src/app/__init__.py", "src/app/io/read.py"],
    ),
    ("python", PYTHON, "src/app/io/read.py", "from ..core import x as y  # not io\n", ["src/app/core.py"]),
    ("python", PYTHON, "src/app/io/read.py", "from .... import too_far\nimport read_not\n# import app.core\n", []),
    (
        "typescript",
        SCRIPT,
        "web/app.ts",
        "import { a } from './lib';\nimport './data.json'\nexport * from \"../util\"\nimport react from 'react'\n",
        ["web/lib/index.ts", "web/data.json", "util.js"],
    ),
    (
        "javascript",
        SCRIPT,
        "web/util.js",
        "const t = require('./lib/table')\nimport('./util.js')\n",
        ["web/lib/table.tsx"],
    ),
    (
        "typescript",
        SCRIPT,
        "web/lib/index.ts",
        "import x from './table.js'\nimport y from '../app.js'\n",
        ["web/lib/table.tsx", "web/app.ts"],
    ),
    (
        "cpp",
        CPP,
        "src/main.cpp",
        '#include <vector>\n#include "table.h"\n#  include "acme/map.hpp"\n',
        ["src/table.h", "include/acme/map.hpp"],
    ),
    ("c", CPP, "include/acme/map.hpp", '#include "none.h"\n#include "../table.h"\n', ["src/table.h"]),
    (
        "go",
        GO,
        "cmd/main.go",
        'package main\n\nimport (\n\t"fmt"\n\tst "example.org/acme/internal/store"\n)\n',
        ["internal/store/open.go", "internal/store/close.go"],
    ),
    ("go", GO, "store/x.go", 'import "fmt"\n', []),
    ("java", JAVA, JAVA[0], "import org.acme.io.Reader;\nimport java.util.List;\n", [JAVA[1]]),
    ("java", JAVA, "src/test/java/org/acme/io/Reader.java", "import static org.acme.App.run;\n", [JAVA[0]]),
    ("rust", RUST, "src/lib.rs", "mod table;\npub(crate) mod io;\nuse std::fmt;\n", ["src/table.rs", "src/io/mod.rs"]),
    ("rust", RUST, "src/table.rs", "mod row;\nuse crate::io::read::lines;\n", ["src/table/row.rs", "src/io/read.rs"]),
    ("rust", RUST, "src/io/read.rs", "use super::super::nothing;\nuse crate::table::Row;\n", ["src/table.rs"]),
    (
        "ruby",
        RUBY,
        "spec/table_spec.rb",
        "require 'json'\nrequire_relative 'helper'\nrequire \"acme/table\"\n",
        ["spec/helper.rb", "lib/acme/table.rb"],
    ),
    (
        "php",
        PHP,
        "public/index.php",
        "<?php\nrequire_once __DIR__ . '/config.php';\nuse Acme\\Io\\Reader;\n",
        ["public/config.php", "src/Io/Reader.php"],
    ),
    ("cobol", PYTHON, "main.py", "import app.core\n", []),
]


@pytest.mark.parametrize(("language", "paths", "path", "head", "expected"), CASES)
def test_imports(language: str, paths: list[str], path: str, head: str, expected: list[str]) -> None:
    assert [paths[number] for number in imported(head, language, path, Paths(paths))] == expected


def test_the_nearest_of_several_is_taken() -> None:
    paths = ["a/x/util.py", "b/x/util.py", "b/y/main.py", "a/y/main.py"]
    for path, expected in (("b/y/main.py", "b/x/util.py"), ("a/y/main.py", "a/x/util.py"), ("c.py", "a/x/util.py")):
        assert [paths[number] for number in imported("import x.util\n", "python", path, Paths(paths))] == [expected]


@given(
    head=st.text(max_size=80) | st.from_regex(r"(import|from|use|mod|require) [\w./:\"'\\ ;(){}-]{0,30}\n?"),
    path=st.text(max_size=20),
    language=st.sampled_from(sorted(_FINDERS)),
)
def test_any_text_is_read(head: str, path: str, language: str) -> None:
    paths = Paths([path, "a/b.py", "index.ts", "", "/"])
    found = imported(head, language, path, paths)
    assert len(set(found)) == len(found)
    assert 0 not in found
