"""A file of options: YAML or JSON, read as text whose meaning the fields' types know."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def entries(path: str | Path) -> Iterator[tuple[str, Any, int]]:
    """Key, value (text, list of texts, None or bool) and line (0 when unknown) of each entry of a YAML or JSON file.

    Raises:
        ValueError: The file is neither, or not one mapping.
        OSError: It cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix.lower() == ".json":
            found = json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=tuple)
            if not isinstance(found, tuple):
                raise ValueError("not an object")
            yield from ((key, value, 0) for key, value in found)
            return
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            raise ValueError("not a mapping")
        constructor = _Loader("")
        items = [(constructor.construct_object(k), v, k.start_mark.line + 1) for k, v in root.value]
        yield from ((str(key), constructor.construct_object(value, deep=True), line) for key, value, line in items)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read as options ({reason}); write one `name: value` a line") from error


class _Loader(yaml.SafeLoader):
    """YAML in which every scalar but null stays text, which the field's type reads: YAML 1.1 has 1e-4 for a string."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in rules if tag.endswith(":null")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
