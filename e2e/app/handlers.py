"""Handlers of the end-to-end tests: each is what one user would write."""

import ctypes
import json
import os
import pathlib


def plain(state):
    """No state at all."""
    return {**state, "answer": state.get("number", 0) + 1}


def where(state):
    """What it runs as."""
    return {"uid": os.getuid(), "prepared": os.environ.get("PREPARED"), "argv0": pathlib.Path("/proc/1/cmdline").read_bytes().split(b"\0")[0].decode()}


def counter(state):
    """Add one to a file that all pods share."""
    path = state.get("path", "/state/count")
    try:
        with open(path) as file:
            count = int(file.read())
    except FileNotFoundError:
        count = 0
    with open(path, "w") as file:
        file.write(str(count + 1))
    return {"count": count + 1, "pod": os.uname().nodename}


def files(state):
    """Write, read and list files as told; what a test looks at the state with."""
    for name, text in state.get("write", {}).items():
        with open(f"/state/{name}", "w") as file:
            file.write(text)
    read = {}
    for name in state.get("read", []):
        try:
            with open(f"/state/{name}") as file:
                read[name] = file.read()
        except FileNotFoundError:
            read[name] = None
    return {"read": read, "list": sorted(os.listdir("/state")), "pod": os.uname().nodename}


def hold_the_interpreter(state):
    """Sleep in C with the interpreter's lock held, as a long computation of a C library does."""
    ctypes.PyDLL(None).sleep(ctypes.c_uint(state["seconds"]))
    return {"held": state["seconds"]}


def ledger(state):
    """Enter a message into a ledger that all pods share."""
    try:
        with open("/state/ledger.json") as file:
            book = json.load(file)
    except FileNotFoundError:
        book = {"count": 0, "ids": [], "pods": []}
    book["count"] += 1
    book["ids"].append(state["id"])
    book["pods"].append(os.uname().nodename)
    with open("/state/ledger.json", "w") as file:
        json.dump(book, file)
    return book
