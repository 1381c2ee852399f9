"""What the packages promise each other: names, wire, errors, environment.

The one package that all others import and that imports none of them. Standard library only,
Python >= 3.9, no I/O: it also runs inside the user's container.
"""

__version__ = "0.1.0"
