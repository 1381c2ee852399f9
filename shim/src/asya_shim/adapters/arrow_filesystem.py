"""The state as a file system of Arrow, for what resolves paths by itself: Parquet files and datasets of many.

Imported where a state path is first given to `pyarrow`. Each call is one of `os` or `open`, as the code
would make it that gave the path: Arrow's own threads belong to no turn.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any, List

from pyarrow import PythonFile
from pyarrow.fs import FileInfo, FileSystemHandler, FileType, PyFileSystem

from asya_shim import scopes
from asya_shim.adapters.arrow_threads import lend, source
from asya_shim.wrappers import abandoning_exit


def filesystem() -> Any:
    """A `pyarrow.fs.FileSystem` of all that the running code sees, by absolute or relative path."""
    return PyFileSystem(StateFiles())


class StateFile(PythonFile):  # type: ignore[misc]
    """What stands for an `OSFile`: leaving its block by an exception stores nothing."""

    @classmethod
    def over(cls, file: Any) -> StateFile:
        """One over an open file."""
        made = cls(lend(file))
        made.fileobj = file  # by which `layers.below` finds it
        return made

    __exit__ = abandoning_exit(PythonFile.__exit__)


class StateFiles(FileSystemHandler):  # type: ignore[misc]
    """What Arrow asks of a file system. Errors are those of `os`."""

    def __init__(self) -> None:
        lend(self)
        self._carried = scopes.carry(lambda call, *args: call(*args))

    def _do(self, call: Any, *args: Any) -> Any:
        if scopes.current_turn.get() is not None:
            return call(*args)
        return self._carried(call, *args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StateFiles)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __reduce__(self) -> Any:
        return StateFiles, ()

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "asya"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: List[str]) -> List[Any]:
        return [self._do(_info, path) for path in paths]

    def get_file_info_selector(self, selector: Any) -> List[Any]:
        return list(self._do(_below, selector.base_dir, selector.recursive, selector.allow_not_found))

    def create_dir(self, path: str, recursive: bool) -> None:
        if recursive:
            self._do(lambda: os.makedirs(path, exist_ok=True))
        else:
            self._do(os.mkdir, path)

    def delete_dir(self, path: str) -> None:
        self._do(shutil.rmtree, path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        self._do(_empty, path, missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("deleting everything")

    def delete_file(self, path: str) -> None:
        self._do(os.remove, path)

    def move(self, src: str, dest: str) -> None:
        self._do(os.replace, src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._do(shutil.copyfile, src, dest)

    def open_input_stream(self, path: str) -> Any:
        return source(self._do(open, path, "rb"))

    def open_input_file(self, path: str) -> Any:
        return source(self._do(open, path, "rb"))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return PythonFile(lend(self._do(open, path, "wb")), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        return PythonFile(lend(self._do(open, path, "ab")), mode="w")


def _info(path: str) -> Any:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return FileInfo(path, FileType.NotFound)
    if stat.S_ISDIR(found.st_mode):
        return FileInfo(path, FileType.Directory)
    return FileInfo(path, FileType.File, size=found.st_size, mtime=found.st_mtime)


def _below(directory: str, recursive: bool, absent_is_fine: bool) -> List[Any]:
    found = []
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        if absent_is_fine:
            return []
        raise
    for entry in entries:
        if entry.is_dir():
            found.append(FileInfo(entry.path, FileType.Directory))
            if recursive:
                found += _below(entry.path, True, absent_is_fine)
        else:
            status = entry.stat()
            found.append(FileInfo(entry.path, FileType.File, size=status.st_size, mtime=status.st_mtime))
    return found


def _empty(directory: str, absent_is_fine: bool) -> None:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        if absent_is_fine:
            return
        raise
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry.path)
        else:
            os.remove(entry.path)
