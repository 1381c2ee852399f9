"""Reads the state in its first line, before anything else: no start race."""

FIRST = open("/state/greeting.txt").read() if __import__("os").path.exists("/state/greeting.txt") else None


def process(state):
    return {"first": FIRST}
