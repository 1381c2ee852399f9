"""Rows for what stands on files or runs work: compressors and archives, databases, locks, threads and executors."""

from typing import Any, Callable, List, Tuple

ROWS: List[Tuple[str, str, Callable[[Any], Any]]] = []
