"""Plain data from YAML, by one rule for every file that people write."""

from typing import Any

import yaml

from vq.errors import ConfigError

__all__ = ["parse_yaml"]

_TAG = "tag:yaml.org,2002:"
_VALUES = tuple(_TAG + name for name in ("null", "bool", "int", "float"))
#: YAML makes times of texts such as 2024-01-31, and more of "=" and "<<"; here they stay texts.
_TEXTS = tuple(_TAG + name for name in ("str", "timestamp", "value", "merge"))
#: Bounds of what is read; aliases count as often as they are used.
_LEVELS, _NODES = 32, 100_000
#: What PyYAML means, by words of its own; those that say more come first.
_SAID = {
    "undefined alias": "an alias stands before its anchor",
    "duplicate anchor": "an anchor is given twice",
    "another document": "it must be one document, not several",
    "'\\t'": "a tab stands where only spaces may",
    "end of stream": "a quotation does not end",
    "'<stream end>'": "a bracket does not end",
    "expected ',' or": "a comma or the end of a bracket must stand here",
    "mapping values are not allowed": "a colon must follow a key, at the start of a line",
    "could not find expected ':'": "a colon must follow the key before this place",
    "expected <block end>": "it must be indented like the lines before it",
    "unknown escape": "a quotation has an escape that is none",
    "cannot start any token": "a value must not start with this character; quote it",
}


def parse_yaml(text: str, subject: str, *, error: type[ConfigError] = ConfigError) -> Any:
    """Read one YAML document as mappings, lists, texts, numbers, truth values and None.

    Keys are texts, as they are written: ``1.10`` and ``no`` stay what they are. A key that is
    given twice is refused. ``<<`` merges mappings, whose keys come first; a key of the mapping
    itself takes the place of a merged one, an earlier merged mapping that of a later one.

    Parameters
    ----------
    text : str
    subject : str
        What errors call the text.
    error : type, optional
        What is raised.

    Raises
    ------
    ConfigError
        If the text is not YAML, a key is no text or given twice, a tag is none of plain data, or
        the document is too deep or too large; with the place.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _Builder(loader).build(node)
    except RecursionError:
        problem = f"it nests deeper than {_LEVELS} levels"
    except _Wrong as caught:
        problem = f"{caught} {_place(caught.line, caught.column)}"
    except yaml.MarkedYAMLError as caught:
        mark = caught.problem_mark or caught.context_mark
        what = f"{caught.context} {caught.problem}"
        found = (said for words, said in _SAID.items() if words in what)
        problem = f"{next(found, 'it is none from here on')} {_place(mark.line, mark.column)}"
    except yaml.reader.ReaderError as caught:
        before = text[: caught.position].split("\n")
        problem = f"the character {chr(caught.character)!a} may be in none "
        problem += _place(len(before) - 1, len(before[-1]))
    raise error(f"{subject}: must be valid YAML, but {problem}")


class _Wrong(Exception):
    """YAML that is none of plain data, and where."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.line, self.column = mark.line, mark.column


class _Builder:
    """Makes data of nodes; equal nodes become data of their own, which nobody else changes."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._nodes = 0

    def build(self, node: yaml.Node, level: int = 0) -> Any:
        self._nodes += 1
        if level > _LEVELS:
            raise _wrong(node, f"it nests deeper than {_LEVELS} levels")
        if self._nodes > _NODES:
            raise _wrong(node, f"it holds more than {_NODES:,} values, aliases counted")
        match node:
            case yaml.MappingNode(tag=tag) if tag == _TAG + "map":
                return self._mapping(node, level)
            case yaml.SequenceNode(tag=tag) if tag == _TAG + "seq":
                return [self.build(each, level + 1) for each in node.value]
            case yaml.ScalarNode(tag=tag) if tag in _TEXTS:
                return node.value
            case yaml.ScalarNode(tag=tag) if tag in _VALUES:
                return self._value(node)
        name = node.tag.replace(_TAG, "!!")
        raise _wrong(node, f"the tag {name} is none of plain data")

    def _mapping(self, node: yaml.MappingNode, level: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong(key, "a key must be a text, not a list or a mapping")
            if (key.value, key.tag == _TAG + "merge") in seen:
                raise _wrong(key, f"the key {key.value!r} is given twice")
            seen.add((key.value, key.tag == _TAG + "merge"))
            if key.tag == _TAG + "merge":
                merged = self._merged(value, level)
            else:
                own[key.value] = self.build(value, level + 1)
        # A setting that is given here comes after those of the base, where the later one counts.
        return {name: value for name, value in merged.items() if name not in own} | own

    def _merged(self, node: yaml.Node, level: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(each, yaml.MappingNode):
                raise _wrong(each, "<< must merge a mapping, or a list of mappings")
            merged |= {k: v for k, v in self.build(each, level + 1).items() if k not in merged}
        return merged

    def _value(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._loader.construct_object(node)
        except (ArithmeticError, LookupError, ValueError):  # of a tag, or of a thousand digits
            name = node.tag.replace(_TAG, "!!")
            raise _wrong(node, f"{node.value[:40]!r} is no {name}") from None


def _wrong(node: yaml.Node, problem: str) -> _Wrong:
    return _Wrong(problem, node.start_mark)


def _place(line: int, column: int) -> str:
    """A place that PyYAML counts from zero."""
    return f"(line {line + 1}, column {column + 1})"
