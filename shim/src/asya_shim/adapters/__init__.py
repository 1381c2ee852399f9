"""Adapters for libraries that open paths in C, C++ or Rust: of a state path they get an open file, as they may.

A room for each library, imported when one of its modules in `late.ADAPTED` is, and never before. An adapter
changes nothing for other paths, and returns what the library would return of a file on a disk; what cannot be
had so is left to the guard at the mount path, or refused where the library would not tell (`by_path.refusing`).

`ROWS` of a room: module -> (attribute, what makes its replacement out of the original).
"""
