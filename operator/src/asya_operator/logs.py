"""One JSON object per log line; what is given as `extra` becomes its fields."""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What kopf hangs on its records for itself: all its settings, thousands of characters of them.
_KOPF = frozenset({"settings", "k8s_skip"})


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", ...extra, "error"?}`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD | _KOPF}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: str) -> None:
    """All loggers to stderr, at `level` (debug, info, warning, error) or above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level == "info":
        # Kopf tells of each event of each object.
        logging.getLogger("kopf").setLevel(logging.WARNING)
