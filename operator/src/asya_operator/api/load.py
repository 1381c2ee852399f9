"""From YAML text or a parsed body to `AsyncActor`s, or to errors that say where and what.

Reads text, never files. YAML as kubectl reads it (YAML 1.1 booleans, no dates, no base 60), but a
key given twice is an error, and a word that became a boolean is named.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from asya_contract.names import API_VERSION, GROUP, KIND
from asya_operator.api import rules
from asya_operator.api.model import AsyncActor
from asya_operator.api.problems import ManifestError, Path, Problem, from_pydantic, show, with_line

# etcd refuses more in one object; several documents may share a file.
LONGEST_TEXT = 8 * 2**20
MOST_NODES = 200_000
DEEPEST = 64


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without dates and base 60 numbers, like the parser of kubectl."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rpartition(":")[2] not in ("timestamp", "int", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


class _Document:
    """One parsed document: plain data, and for each path its line and how its scalar was written."""

    def __init__(self, node: yaml.Node, loader: _Loader) -> None:
        self.lines: dict[Path, int] = {}
        self.words: dict[Path, str] = {}
        self.problems: list[Problem] = []
        self._loader = loader
        self._nodes = 0
        self.first_line = node.start_mark.line + 1
        self.data = self._value(node, ())

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES or len(path) > DEEPEST:
            raise yaml.MarkedYAMLError(problem="the document is too large or too deep", problem_mark=node.start_mark)
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:bool":
            self.words[path] = node.value
        return self._loader.construct_object(node, deep=True)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    value = self._value(source, path)
                    if isinstance(value, dict):
                        merged = {**value, **merged}
                continue
            # JSON has text for keys only: `on:` is the key "on".
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.tag)
            here = (*path, key)
            if key in out:
                self.problems.append(Problem(here, "is there twice", key_node.start_mark.line + 1))
            out[key] = self._value(value_node, here)
            self.lines[here] = key_node.start_mark.line + 1
        return {**merged, **out}

    def place(self, problem: Problem, base: Path) -> Problem:
        """`problem` with its line, and with the word that YAML took for a boolean."""
        path = (*base, *problem.path)
        near = path
        while near and near not in self.lines:
            near = near[:-1]
        if path in self.words and "expected text" in problem.message:
            word = self.words[path]
            problem = Problem(
                problem.path,
                f"expected text, got a boolean: YAML reads {word} without quotes as one; write {word!r}",
            )
        return with_line(problem, self.lines.get(near, self.first_line))


def parse_actor(body: Mapping[str, Any], source: str = "") -> AsyncActor:
    """One AsyncActor from a parsed body, as the API server or `kubectl -o json` gives it.

    Raises:
        ManifestError: with every problem found.
    """
    try:
        actor = AsyncActor.model_validate(dict(body))
    except ValidationError as error:
        raise ManifestError(source, from_pydantic(AsyncActor, error, body)) from None
    problems = list(rules.check(actor))
    if problems:
        raise ManifestError(source, problems)
    return actor


def load_manifest(text: str, source: str) -> list[AsyncActor]:
    """The AsyncActors in `text`, YAML or JSON of one or several documents; other kinds are passed over.

    Args:
        text: what the file holds.
        source: its name, for messages.

    Raises:
        ManifestError: text that is no YAML, a document that is no Kubernetes object, a faulty
            AsyncActor, two actors of one name, or no actor at all; with all problems and their lines.
    """
    actors: list[AsyncActor] = []
    problems: list[Problem] = []
    names: set[tuple[str, str]] = set()
    for document in _documents(text, source):
        problems.extend(document.problems)
        for base, body in _objects(document.data):
            if not _is_ours(document, base, body, problems):
                continue
            try:
                actor = parse_actor(body)
            except ManifestError as error:
                problems.extend(document.place(problem, base) for problem in error.problems)
                continue
            if (actor.namespace, actor.name) in names:
                twice = Problem(("metadata", "name"), f"{actor.name!r} is there twice")
                problems.append(document.place(twice, base))
            names.add((actor.namespace, actor.name))
            actors.append(actor)
    if not actors and not problems:
        problems.append(Problem((), f"holds no {KIND}; one starts with apiVersion: {API_VERSION} and kind: {KIND}"))
    if problems:
        raise ManifestError(source, sorted(problems, key=lambda problem: problem.line or 0))
    return actors


def _documents(text: str, source: str) -> Iterator[_Document]:
    if len(text) > LONGEST_TEXT:
        raise ManifestError(source, [Problem((), f"has {len(text)} characters; at most {LONGEST_TEXT} are read")])
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                yield _Document(node, loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ManifestError(
            source, [Problem((), f"is not YAML: {why}", mark.line + 1 if mark is not None else None)]
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


def _objects(data: Any) -> Iterator[tuple[Path, Any]]:
    """The objects of a document: itself, or the items of a List."""
    if isinstance(data, dict) and data.get("kind") == "List" and isinstance(data.get("items"), list):
        for index, item in enumerate(data["items"]):
            yield ("items", index), item
    else:
        yield (), data


def _is_ours(document: _Document, base: Path, body: Any, problems: list[Problem]) -> bool:
    """True for an AsyncActor, also one whose apiVersion or kind has a slip in it."""
    if not isinstance(body, dict):
        found = Problem((), f"expected a Kubernetes object (a mapping with apiVersion and kind), got {show(body)}")
        problems.append(document.place(found, base))
        return False
    version, kind = body.get("apiVersion"), body.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "apiVersion" if not isinstance(version, str) else "kind"
        wanted = API_VERSION if missing == "apiVersion" else KIND
        problems.append(document.place(Problem((missing,), f"missing; an actor has {missing}: {wanted}"), base))
        return False
    group = version.partition("/")[0]
    slip = "/" in version and difflib.SequenceMatcher(None, group, GROUP).ratio() > 0.8
    return kind == KIND or slip
