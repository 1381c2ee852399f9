"""What is wrong with a manifest, in words: field path, value, what is allowed, what comes nearest.

Turns pydantic's errors into ours. No rule is decided here.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from asya_operator.api.patterns import WORDS

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One fault. `path` leads from the document's root to the field; `line` counts from 1."""

    path: Path
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{render_path(self.path)}: {self.message}" if self.path else self.message


class ManifestError(ValueError):
    """A manifest that cannot be used. `problems` has all that was found, in the order of the document."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        place = ":".join(filter(None, (self.source, str(problem.line or ""))))
        return f"{place}: {problem}" if place else str(problem)


def render_path(path: Sequence[str | int]) -> str:
    """`("spec", "env", 0, "value")` as `spec.env[0].value`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing."""
    folded = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def show(value: Any, longest: int = 60) -> str:
    """A value for a message: YAML's words for YAML's values, and not more than `longest` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _strip(annotation: Any) -> Any:
    """The type below Annotated and `| None`."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            rest = [a for a in typing.get_args(annotation) if a is not type(None)]
            if len(rest) != 1:
                return annotation
            annotation = rest[0]
        else:
            return annotation


def fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The JSON names of the fields that the object at `path` may have; empty where that is free."""
    here: Any = model
    for part in path:
        here = _strip(here)
        if isinstance(part, int):
            here = typing.get_args(here)[0] if typing.get_origin(here) is list else None
        elif isinstance(here, type) and issubclass(here, BaseModel):
            named = {field.alias or name: field for name, field in here.model_fields.items()}
            here = named[part].annotation if part in named else None
        else:
            return []
    here = _strip(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [field.alias or name for name, field in here.model_fields.items()]
    return []


def _locate(data: Any, loc: Sequence[str | int]) -> tuple[Path, Any]:
    """How far `loc` leads into `data`, and what is there. pydantic appends tags of its own for unions."""
    path: Path = ()
    for part in loc:
        members = dict(enumerate(data)) if isinstance(data, list) else data
        if not isinstance(members, dict) or part not in members:
            break
        data = members[part]
        path += (part,)
    return path, data


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _got(path: Path, value: Any) -> str:
    # A value of `env` may be a secret that only lacks its quotes.
    if path and path[-1] == "value" and not isinstance(value, bool):
        return f"{type(value).__name__} (a value in quotes is text)"
    return show(value)


def _explain(model: type[BaseModel], error: Any, data: Any) -> Problem:
    kind, loc, ctx = error["type"], tuple(error["loc"]), error.get("ctx", {})
    path, value = _locate(data, loc)
    if kind == "missing":
        return Problem((*path, loc[-1]), "missing, and it is required")
    if kind == "extra_forbidden":
        known = fields_at(model, path[:-1])
        return Problem(path, f"no such field{nearest(str(path[-1]), known)} (fields here: {', '.join(known)})")
    if kind == "empty_field":
        return Problem((*path, ctx["field"]), "has no value; give it one or remove it (mind the indentation below it)")
    if kind == "literal_error":
        allowed = [str(choice) for choice in _choices(model, path)]
        message = f"{show(value)} is not allowed; one of {', '.join(allowed)}"
        return Problem(path, message + (nearest(value, allowed) if isinstance(value, str) else ""))
    if kind in _EXPECTED:
        if kind in ("int_type", "string_type") and "constrained-" in str(loc[-1]):
            return Problem(path, f"{show(value)} is not a quantity; expected {WORDS[_QUANTITY_PATTERN]}")
        number = kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool)
        return Problem(path, f"expected {_EXPECTED[kind]}, got {_got(path, value)}{'; quote it' if number else ''}")
    if kind == "string_pattern_mismatch":
        return Problem(path, f"{show(value)} is not {WORDS.get(ctx['pattern'], 'of the form ' + ctx['pattern'])}")
    if kind == "string_too_short":
        return Problem(path, "is empty; give it a value or remove it")
    if kind == "string_too_long":
        return Problem(path, f"has {len(value)} characters; at most {ctx['max_length']} are allowed")
    if kind == "too_long":
        return Problem(path, f"has {len(value)} entries; at most {ctx['max_length']} are allowed")
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(model, path)
        return Problem(path, f"{show(value)} is out of range; {_range(low, high)}")
    return Problem(path, f"{show(value)}: {error['msg']}")


def _range(low: Any, high: Any) -> str:
    return f"allowed are {low} to {high}" if high is not None else f"at least {low}"


def _field(model: type[BaseModel], path: Path) -> Any:
    here: Any = model
    field: Any = None
    for part in path:
        here = _strip(here)
        if isinstance(part, int):
            here = typing.get_args(here)[0]
        elif isinstance(here, type) and issubclass(here, BaseModel):
            field = next(f for n, f in here.model_fields.items() if (f.alias or n) == part)
            here = field.annotation
        else:
            return None
    return field


def _choices(model: type[BaseModel], path: Path) -> tuple[Any, ...]:
    return typing.get_args(_strip(_field(model, path).annotation))


def _bounds(model: type[BaseModel], path: Path) -> tuple[Any, Any]:
    field = _field(model, path)
    metadata = field.metadata if field is not None else ()
    low = next((m.ge for m in metadata if getattr(m, "ge", None) is not None), 0)
    high = next((m.le for m in metadata if getattr(m, "le", None) is not None), None)
    return low, high


_QUANTITY_PATTERN = next(pattern for pattern, words in WORDS.items() if words.startswith("a quantity"))


def from_pydantic(model: type[BaseModel], error: ValidationError, data: Any) -> list[Problem]:
    """Our words for pydantic's errors on `data`; one per field."""
    found: dict[Path, Problem] = {}
    for item in error.errors(include_url=False, include_input=False):
        problem = _explain(model, item, data)
        known = found.get(problem.path)
        # A union reports once per member: the pattern says more than the type.
        if known is None or "is not a quantity" in known.message:
            found[problem.path] = problem
    return list(found.values())


def with_line(problem: Problem, line: int | None) -> Problem:
    """The same problem at a line of the source."""
    return replace(problem, line=line)
