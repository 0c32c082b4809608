"""Configuration files: strict YAML in, and YAML out that reads back the same.

It reads as people write (`1e-3` is a number, a date is text) and refuses a key given twice, which YAML readers let pass
with the last one winning. There is no interpolation: a file is the whole truth, as a run's `config.yaml` must be.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from inlay.config.errors import ConfigError
from inlay.config.files import read_bounded_text

# YAML 1.1, which PyYAML follows, wants a dot in every float. Reader and writer share this, so that the writer quotes
# the text "1e-3".
_FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
MOST_BYTES = 4 << 20
_FLOAT_TAG = "tag:yaml.org,2002:float"
_DATE_TAG = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, leaves dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute, never changed after this)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        # A few lines of aliases of aliases stand for more than any memory holds.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not read: write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the loader would read as something else, and writes no alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`, as plain types: no interpolation, `1e-3` is a number, dates stay text.

    Raises ConfigError with one line for a missing or unreadable file, bad YAML, a duplicate key, or no mapping.
    """
    try:
        text = read_bounded_text(path, MOST_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at '{path}'") from None
    except UnicodeDecodeError:
        raise ConfigError(f"'{path}' is not UTF-8 text, so not a configuration file") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot read the configuration file '{path}': {reason}") from None
    try:
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"'{path}' is not valid YAML{where}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"'{path}' is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"'{path}' is not a configuration: it is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"'{path}' holds a value that cannot be read: {str(error)[:120]}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"'{path}' is not a configuration: expected `key: value` lines")
    return data


def dump_yaml(data: dict[str, Any]) -> str:
    """`data` (plain JSON types) as YAML text in its own order; `load_yaml` gives it back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
