"""The keys of log lines: runtime, proxy, operator and webhook write one JSON object a line, and mean the same by a key.

A line has the first four keys, and of the others those that it has something to say of.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

ALWAYS: Dict[str, str] = {
    "time": "when, ISO 8601 with milliseconds and offset",
    "level": "`debug`, `info`, `warning` or `error`",
    "logger": "the part that speaks, such as `asya_proxy.requests`",
    "message": "what happened, in words",
}

KEYS: Dict[str, str] = {
    **ALWAYS,
    "actor": "namespace/name of the actor",
    "mount": "name of the mount",
    "key": "the path below the mount, percent-encoded",
    "op": "the operation, as in the metrics",
    "backend": "`s3`, `gcs`, `redis`, `nats` or `sqlite`",
    "ms": "how long it took, in milliseconds",
    "error": "the error's code, as on the wire",
    "cause": "what went wrong, in words",
    "exception": "a traceback, in lines",
    "trace_id": "id of the trace, where the request came with a `traceparent`",
    "id": "id of the message",
    "type": "class of the exception that a handler raised",
    "mro": "the classes above it",
    "attempts": "how often it was tried",
    "conflict": "`true` where somebody else wrote a file first",
    "advice": "what to do about it",
    "status": "HTTP status of the answer",
    "object": "name of an object in the bucket, with the prefix",
    "upload": "id of an upload in parts",
    "bucket": "name of the bucket",
    "stream": "name of a NATS stream",
    "server": "address of a NATS server",
    "handler": "the handler that was loaded",
    "port": "TCP port",
    "socket": "Unix socket",
    "sockets": "Unix sockets of the mounts",
    "http": "address of health and metrics",
    "pid": "process id",
    "turns": "turns that run or wait",
    "connections": "open connections",
    "seconds": "a time limit, or a wait",
    "starting": "`true` before the handler was loaded",
    "consistency": "`lww` or `cas`",
    "namespace": "namespace of a pod, which has no name yet when it is reviewed",
    "uid": "uid of the admission request",
    "reason": "reason of an Event or a condition",
    "actors": "how many actors",
    "file": "path of a file",
    "expires": "Unix time of a certificate's end",
    "secret": "name of a Secret",
    "authorities": "how many authorities are trusted",
    "configuration": "name of the webhook's configuration",
    "k8s_ref": "the object that kopf speaks of",
}
"""Key -> meaning."""
