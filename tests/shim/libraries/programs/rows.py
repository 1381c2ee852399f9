"""Rows of the table of libraries: what a library writes and reads, by path and by file object.

`write(target)` and `read(source)` get a path, or a file object where the row is of one. What `read`
returns is compared by its `repr` between a real directory and the state.
"""


class Row:
    """One way of using a library.

    by: "path", "object" or both.
    make: writes the file that is read, where `write` is not the way to (by path, on a disk).
    text, mode: how file objects are opened, for writing and for reading.
    tree: what is written is a directory, or several files whose names begin with `name`.
    only: "write" where reading merely proves that what was written is right.
    instead: what works where this raises.
    """

    def __init__(self, library, what, write=None, read=None, **options):
        self.library = library
        self.what = what
        self.write = write
        self.read = read
        self.by = options.pop("by", "both")
        self.make = options.pop("make", None)
        self.name = options.pop("name", "file")
        self.text = options.pop("text", False)
        self.mode = options.pop("mode", "w" if self.text else "wb")
        self.tree = options.pop("tree", False)
        self.only = options.pop("only", "")
        self.instead = options.pop("instead", "")
        assert not options, options
        assert self.make or self.write, what

    def cells(self):
        """`(how, by)` of each cell that there is."""
        for by in ("path", "object"):
            if self.by in (by, "both"):
                for how in ("read", "write"):
                    if getattr(self, how) is not None and self.only in ("", how):
                        yield how, by


def tabulate(rows):
    """A function that adds a row to `rows`, as `Row` takes it."""
    return lambda *args, **options: rows.append(Row(*args, **options))
