"""Two proxies that start on a new state directory at once: each finds our schema, neither takes it for a stranger's."""

import sqlite3

from asya_proxy.stores.sqlite_file import _open, _prepare


def test_another_process_makes_the_schema_while_this_one_looks(tmp_path):
    path = str(tmp_path / "state.db")
    db, other = _open(path, 5.0), _open(path, 0.05)
    tried = []

    def between(statement):
        if statement == "PRAGMA user_version" and not tried:
            tried.append(statement)
            try:
                _prepare(other, path, 0.05)
            except sqlite3.OperationalError:
                pass  # locked out while this one looks: as good

    db.set_trace_callback(between)
    try:
        _prepare(db, path, 5.0)
        _prepare(other, path, 5.0)
        for each in (db, other):
            assert each.execute("SELECT count(*) FROM objects").fetchone() == (0,)
    finally:
        db.close()
        other.close()
    assert tried
