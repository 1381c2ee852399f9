"""The words of the reference that the code does not hold: what requests, headers and codes mean to a reader."""

from asya_contract import wire
from asya_contract.tracing import HEADER

SECTIONS = (
    ("spec", "What the actor is."),
    ("spec.podTemplate", "A partial PodTemplateSpec. Fields that are not here are passed on as they are."),
    ("spec.stateProxy", "The actor's state."),
    ("spec.stateProxy.mounts[]", "Further mounts, each with a state of its own."),
    ("status", "What the operator has seen. [Conditions](../operations/conditions.md) has every reason."),
)

READERS = {
    "ProxyEnv": (
        "State proxy",
        "Read by `asya-state-proxy`. A variable `STATE_*` that is not here is an error. The operator sets them; "
        "those marked may stand in `stateProxy.env` of an actor. The backends' SDKs read their own variables besides: "
        "see the setup guide of each.",
    ),
    "RuntimeEnv": (
        "Runtime",
        "Read by `run.py` in the handler's container. The operator sets all but `ASYA_LOG_LEVEL`, which may stand in "
        "`spec.env`.",
    ),
    "ShimEnv": (
        "Shim",
        "Activates the file hooks in any Python process. With `PYTHONPATH=/opt/asya/lib` they are all that a program "
        "needs.",
    ),
}

REQUESTS = {
    ("FILE", "GET"): (
        "/keys/{key}",
        "The content. `Range`, `If-Match` and `If-None-Match` are honoured: 200, 206, 304",
    ),
    ("FILE", "HEAD"): ("/keys/{key}", "The same headers, and `X-Is-File`; a directory answers as well"),
    ("FILE", "PUT"): (
        "/keys/{key}",
        "Store the body. `If-None-Match: *` creates only, `If-Match` replaces that version only: 204",
    ),
    ("FILE", "PATCH"): ("/keys/{key}", "Append the body, atomically, never on a condition: 204 and `X-Base-ETag`"),
    ("FILE", "DELETE"): ("/keys/{key}", "Delete; `If-Match` is honoured: 204"),
    ("FILE", "POST"): (
        "/keys/{key}?rename_to={key}",
        "Rename. Conditions are the target's, `X-Copy-Source-If-Match` is the source's: 204",
    ),
    ("DIRECTORY", "GET"): ("/keys/{key}/", "409 `is_directory`, or 404"),
    ("DIRECTORY", "HEAD"): ("/keys/{key}/", "200 where there is such a directory"),
    ("DIRECTORY", "PUT"): ("/keys/{key}/", "Make an empty directory: 204"),
    ("DIRECTORY", "DELETE"): ("/keys/{key}/", "Remove an empty directory: 204"),
    ("DIRECTORY", "POST"): (
        "/keys/{key}/?rename_to={key}/",
        'Rename a directory: 204. With a body `{"known": {NAME: VERSION}}`, of files by their names from there '
        '(null: any version): 200 and `{"moved": {NAME: NEW VERSION}}` of those that were moved at exactly that '
        "version. Who gets no such answer knows nothing of what was moved",
    ),
    ("TOP", "GET"): (
        "/keys/?prefix=&delimiter=&limit=&after=&detail=",
        "A listing in JSON: `keys`, `prefixes`, `truncated`, `exists`, `next`. An empty delimiter is recursive; "
        "`detail=1` gives each key its size, mtime and version",
    ),
    ("TOP", "HEAD"): ("/keys/", "200"),
    ("ATTRIBUTES", "GET"): ("/meta/{key}?attr=", "User attributes: their names, or one value"),
    ("ATTRIBUTES", "PUT"): (
        "/meta/{key}",
        'Set one, body `{"attr": NAME, "value": TEXT}`; moves the version. 501 where that is not atomic',
    ),
    ("ATTRIBUTES", "DELETE"): ("/meta/{key}?attr=", "Remove one"),
    ("ELSEWHERE", "GET"): ("/healthz, /readyz, /metrics", "As on `STATE_HTTP_ADDR`"),
    ("ELSEWHERE", "HEAD"): ("/healthz, /readyz, /metrics", "The same without a body"),
}

HEADERS = {
    wire.H_PROTOCOL: ("both", f"Version of this protocol, `{wire.PROTOCOL}`. Another one is refused in one line"),
    wire.H_CONSISTENCY: ("answer", "`lww` or `cas`"),
    wire.H_BACKEND: ("answer", "The backend's name, for messages"),
    wire.H_WRITE_ID: (
        "request",
        f"The write id of a change, at least {wire.MIN_WRITE_ID_BITS} random bits, the same on each repetition. A "
        "change without one is never repeated by anybody",
    ),
    wire.H_IS_FILE: ("answer", "`true` for a file, `false` for a directory"),
    wire.H_BASE_ETAG: ("answer", "The version that an append was appended to; absent where it created the file"),
    wire.H_SOURCE_IF_MATCH: ("request", "The version that the source of a rename must have"),
    wire.H_MTIME: ("answer", "Last write, nanoseconds since the epoch"),
    HEADER: (
        "request",
        "The [trace](https://www.w3.org/TR/trace-context/) of the turn: in the log of failed requests, and passed on "
        "to S3 and GCS",
    ),
    wire.H_ERROR: ("answer", "The error's code, also where an answer has no body"),
}

PORTS = {
    "proxy": ("State proxy", "`/metrics` on `stateProxy.httpPort` (9464) of each pod."),
    "operator": ("Operator", "`/metrics` on port 8080 of the operator."),
    "webhook": ("Webhook", "`/metrics` on port 8080 of each replica."),
    "runtime": ("Runtime", "`/metrics` on `port` of each pod, with state or without."),
}

RUNTIME = {
    "msg_parsing_error": ("400", "the body is no message; `details` says which field"),
    "bad_request": ("4xx, 5xx", "not HTTP as the runtime speaks it, or a body above `ASYA_MAX_REQUEST_SIZE`"),
    "not_found": ("404", "another path than `/`, `/invoke`, `/healthz`, `/readyz`, `/metrics`"),
    "method_not_allowed": ("405", "another method; `Allow` names those there are"),
    "processing_error": ("500", "the handler raised; `details` has message, type, mro and traceback"),
    "starting": ("503", "the handler is not imported yet; `Retry-After`"),
    "busy": ("503", "as many requests run and wait as may, or one waited longer than `turnTimeout`; `Retry-After`"),
    "draining": ("503", "the pod is shutting down; `Retry-After`"),
    "timeout": ("504", "the turn took longer than `turnTimeout` and is discarded"),
}

REFERENCE = {
    "reference/resource.md": "AsyncActor\n\nEvery field of the resource.",
    "reference/environment.md": "Environment\n\nEvery variable of proxy, runtime and shim.",
    "reference/wire.md": "Wire protocol\n\nHTTP on the Unix socket between shim and proxy.",
    "reference/metrics.md": "Metrics\n\nEvery metric of proxy, operator, webhook and runtime.",
    "reference/errors.md": "Errors\n\nEvery error of the handler, the runtime and the processes.",
    "reference/logs.md": "Log lines\n\nEvery key of a log line.",
    "reference/commands.md": "Commands\n\nEvery command and option.",
    "reference/chart.md": "Chart values\n\nEvery value of the Helm chart.",
}
