"""Writes when it is told to end: no stop race."""

import atexit
import os


def last_words():
    with open("/state/last-words.txt", "w") as file:
        file.write(os.uname().nodename)


atexit.register(last_words)


def process(state):
    try:
        with open("/state/last-words.txt") as file:
            said = file.read()
    except FileNotFoundError:
        said = None
    return {"pod": os.uname().nodename, "said": said}
