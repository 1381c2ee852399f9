"""Greenlets of gevent on one file, as turns and outside turns; prints JSON of what came of it.

The shim is active before gevent replaces the blocking functions, as in a pod.
"""

import asya_shim

asya_shim.activate_from_environment()

from gevent import monkey  # noqa: E402

monkey.patch_all()

import contextvars  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

import gevent  # noqa: E402

from asya_shim import StateConflictError, turn  # noqa: E402


def read(path):
    with open(path) as f:
        return f.read()


def increment(path):
    number = int(read(path))
    gevent.sleep(0)  # everybody else's turn to run
    with open(path, "w") as f:
        f.write(str(number + 1))


def increment_often(path, as_turn):
    conflicts = 0
    for _ in range(5):
        while True:
            try:
                if as_turn:
                    with turn():
                        increment(path)
                else:
                    increment(path)
                break
            except StateConflictError:
                conflicts += 1
    return conflicts


def count(path, as_turn):
    """What eight greenlets count to, five each, and how many conflicts they met."""
    started = [gevent.spawn(increment_often, path, as_turn) for _ in range(8)]
    gevent.joinall(started, raise_error=True)
    return int(read(path)), sum(greenlet.value for greenlet in started)


def see_a_turn(path):
    """What a greenlet sees of a turn of another, of one that this has started a thread in, and of one whose context it
    was given."""
    seen = []
    with turn():
        with open(path, "w") as f:
            f.write("not stored yet")
            f.flush()
            inside = threading.Thread(target=lambda: (gevent.sleep(0.01), seen.append(read(path))))
            inside.start()
            gevent.sleep(0)
            other = gevent.spawn(lambda: seen.append(read(path)))
            other.join()
            inside.join()
            gevent.spawn(contextvars.copy_context().run, lambda: seen.append(read(path))).join()
    return seen


turns, outside, seen = sys.argv[1:]
print(json.dumps([count(turns, True), count(outside, False), see_a_turn(seen)]))
