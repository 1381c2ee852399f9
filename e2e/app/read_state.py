"""A program of its own in an init container or a Job: reads a file of the state, writes another."""

import os
import sys

source, target = sys.argv[1:3]
text = open(source).read() if os.path.exists(source) else "nothing"
with open(target, "w") as file:
    file.write(f"found: {text}")
