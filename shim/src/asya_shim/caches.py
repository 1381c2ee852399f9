"""`functools.lru_cache` without `functools`, whose imports cost every Python process in the pod two milliseconds."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])

try:
    from _functools import _lru_cache_wrapper as _wrapper  # type: ignore[import-not-found]
except ImportError:

    def _wrapper(function: Any, size: int, typed: bool, info: Any) -> Any:
        import functools

        return functools.lru_cache(maxsize=size)(function)


def lru_cache(size: int) -> Callable[[_Function], _Function]:
    """Keep the last `size` results of a function."""
    return lambda function: _wrapper(function, size, False, _info)


def _info(*figures: int) -> tuple[int, ...]:
    return figures
