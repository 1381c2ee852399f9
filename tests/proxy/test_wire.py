"""The wire protocol, request by request, over a real socket and the memory store."""

from __future__ import annotations

import asyncio
import json
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest

from asya_contract.wire import PROTOCOL
from support.wire_client import WireClient


async def test_a_file_is_written_read_and_removed(lww: WireClient) -> None:
    assert (await lww.get("f")).error == "key_not_found"
    written = await lww.put("f", b"content")
    assert written.status == 204
    read = await lww.get("f")
    assert (read.status, read.body, read.etag) == (200, b"content", written.etag)
    assert read.etag.startswith('"')
    parsedate_to_datetime(read.headers["last-modified"])
    assert (await lww.delete("f")).status == 204
    gone = await lww.delete("f")
    assert (gone.status, gone.error) == (404, "key_not_found")


async def test_every_answer_says_protocol_consistency_and_backend(cas: WireClient) -> None:
    for reply in (await cas.get("f"), await cas.head("f"), await cas.put("f"), await cas.ask("GET", "/healthz")):
        assert reply.headers["x-asya-protocol"] == PROTOCOL
        assert reply.headers["x-asya-consistency"] == "cas"
        assert reply.headers["x-asya-backend"] == "memory"


async def test_errors_name_actor_backend_key_and_cause(lww: WireClient) -> None:
    error = (await lww.get("dir/f%20g")).json
    assert error == {
        "error": "key_not_found",
        "message": "ns/actor on memory: 'dir/f%20g': no such file",
        "retryable": False,
    }


async def test_another_protocol_is_refused_in_one_line(lww: WireClient) -> None:
    reply = await lww.get("f", x_asya_protocol="2")
    assert (reply.status, reply.error) == (400, "bad_request")
    assert "protocol 2, this proxy 1" in reply.json["message"]
    assert "\n" not in reply.json["message"]


async def test_head_tells_files_from_directories(lww: WireClient) -> None:
    await lww.put("dir/f", b"1234")
    file = await lww.head("dir/f")
    assert (file.status, file.headers["x-is-file"], file.headers["content-length"]) == (200, "true", "4")
    assert file.etag == (await lww.get("dir/f")).etag
    for name in ("dir", "dir/", ""):
        directory = await lww.head(name)
        assert (directory.status, directory.headers["x-is-file"]) == (200, "false"), name
    assert (await lww.head("nothing")).status == 404
    assert (await lww.head("nothing/")).headers["x-asya-error"] == "key_not_found"
    assert (await lww.head("dir/f/")).headers["x-asya-error"] == "not_directory"
    assert (await lww.head("dir/f/below")).headers["x-asya-error"] == "not_directory"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-3", 0, 3), ("bytes=4-", 4, 9), ("bytes=-3", 7, 9), ("bytes=8-100", 8, 9), ("bytes=-100", 0, 9)],
)
async def test_one_range_is_honoured(lww: WireClient, header: str, first: int, last: int) -> None:
    await lww.put("f", b"0123456789")
    reply = await lww.get("f", range=header)
    assert (reply.status, reply.body) == (206, b"0123456789"[first : last + 1])
    assert reply.headers["content-range"] == f"bytes {first}-{last}/10"


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=11-12", "bytes=-0"])
async def test_a_range_outside_is_refused(lww: WireClient, header: str) -> None:
    await lww.put("f", b"0123456789")
    reply = await lww.get("f", range=header)
    assert (reply.status, reply.error) == (416, "range")


async def test_a_range_of_an_empty_file_is_refused(lww: WireClient) -> None:
    await lww.put("f", b"")
    assert (await lww.get("f", range="bytes=0-")).status == 416


@pytest.mark.parametrize("header", ["bytes=3-1", "bytes=0-1,3-4", "bytes=-", "lines=1-2"])
async def test_what_is_not_one_range_is_ignored(lww: WireClient, header: str) -> None:
    await lww.put("f", b"0123456789")
    reply = await lww.get("f", range=header)
    assert (reply.status, reply.body) == (200, b"0123456789")


async def test_reads_on_conditions(lww: WireClient) -> None:
    old = (await lww.put("f", b"old")).etag
    new = (await lww.put("f", b"new")).etag
    assert (await lww.get("f", if_match=new)).body == b"new"
    assert (await lww.get("f", if_match="*")).body == b"new"
    stale = await lww.get("f", if_match=old)
    assert (stale.status, stale.error) == (412, "conflict")
    assert (await lww.get("f", if_none_match=new)).status == 304
    assert (await lww.get("f", if_none_match=f"{old}, {new}")).status == 304
    assert (await lww.get("f", if_none_match=old)).body == b"new"


async def test_conditions_hold_in_lww_too(lww: WireClient) -> None:
    first = (await lww.put("f", b"1", if_none_match="*")).etag
    taken = await lww.put("f", b"2", if_none_match="*")
    assert (taken.status, taken.error) == (412, "exists")
    second = (await lww.put("f", b"2", if_match=first)).etag
    lost = await lww.put("f", b"3", if_match=first)
    assert (lost.status, lost.error) == (412, "conflict")
    assert (await lww.delete("f", if_match=first)).error == "conflict"
    assert (await lww.delete("f", if_match=second)).status == 204
    assert (await lww.put("f", b"4", if_match=second)).error == "conflict"


@pytest.mark.parametrize(
    "headers",
    [
        {"if_match": "*"},
        {"if_match": '"a", "b"'},
        {"if_match": '""'},
        {"if_none_match": '"v"'},
        {"if_none_match": "*", "if_match": '"v"'},
    ],
)
async def test_preconditions_that_cannot_be_meant_are_refused(lww: WireClient, headers: dict[str, str]) -> None:
    reply = await lww.put("f", b"", **headers)
    assert (reply.status, reply.error) == (400, "bad_request")


async def test_cas_demands_a_precondition(cas: WireClient) -> None:
    assert (await cas.put("f", b"1")).error == "precondition_required"
    version = (await cas.put("f", b"1", if_none_match="*")).etag
    assert (await cas.delete("f")).status == 428
    assert (await cas.rename("f", "g")).status == 428
    assert (await cas.append("f", b"2")).status == 204
    assert (await cas.put("f", b"3", if_match=version)).error == "conflict"
    current = (await cas.head("f")).etag
    assert (await cas.rename("f", "g", if_none_match="*", x_copy_source_if_match=current)).status == 204
    assert (await cas.put("d/")).status == 204
    assert (await cas.rename("d", "e")).status == 204
    assert (await cas.delete("e/")).status == 204


async def test_append_says_what_it_was_appended_to(lww: WireClient) -> None:
    created = await lww.append("log", b"one\n")
    assert (created.status, "x-base-etag" in created.headers) == (204, False)
    longer = await lww.append("log", b"two\n")
    assert longer.headers["x-base-etag"] == created.etag
    assert longer.etag != created.etag
    assert (await lww.get("log")).body == b"one\ntwo\n"
    assert (await lww.append("log", b"x", if_match=longer.etag)).error == "bad_request"


async def test_a_repeated_change_acts_once(lww: WireClient) -> None:
    again = {"idempotency_key": "a" * 16}
    assert (await lww.append("log", b"line\n", **again)).etag == (await lww.append("log", b"line\n", **again)).etag
    assert (await lww.get("log")).body == b"line\n"


@pytest.mark.parametrize("write_id", ["short", "a" * 15, "a" * 65, "with space in the id", "plus+slash/equals="])
async def test_write_ids_are_long_and_plain(lww: WireClient, write_id: str) -> None:
    reply = await lww.put("f", b"", idempotency_key=write_id)
    assert (reply.status, reply.error) == (400, "bad_request")
    assert "Idempotency-Key" in reply.json["message"]


async def test_directories(lww: WireClient) -> None:
    assert (await lww.put("d/")).status == 204
    assert (await lww.put("d/")).error == "exists"
    await lww.put("implicit/f")
    assert (await lww.put("implicit/")).error == "exists"
    await lww.put("f")
    assert (await lww.put("f/")).error == "exists"
    assert (await lww.put("f/d/")).error == "not_directory"
    assert (await lww.delete("implicit/")).error == "not_empty"
    assert (await lww.delete("nothing/")).error == "key_not_found"
    assert (await lww.delete("f/")).error == "not_directory"
    assert (await lww.delete("d/")).status == 204
    assert (await lww.head("d")).status == 404


async def test_an_implicit_directory_goes_with_its_last_file_and_a_made_one_stays(lww: WireClient) -> None:
    await lww.put("implicit/f")
    await lww.put("made/")
    await lww.put("made/f")
    await lww.delete("implicit/f")
    await lww.delete("made/f")
    assert (await lww.head("implicit")).status == 404
    assert (await lww.head("made")).status == 200


async def test_files_and_directories_exclude_each_other(lww: WireClient) -> None:
    await lww.put("d/f")
    assert (await lww.put("d", b"")).error == "is_directory"
    assert (await lww.append("d", b"")).error == "is_directory"
    assert (await lww.put("d/f/below", b"")).error == "not_directory"
    assert (await lww.get("d")).error == "is_directory"
    assert (await lww.get("d/")).error == "is_directory"
    assert (await lww.get("d/f/below")).error == "not_directory"
    assert (await lww.delete("d")).error == "is_directory"
    assert (await lww.put("e/", b"content")).error == "bad_request"


async def test_renaming_files(lww: WireClient) -> None:
    await lww.put("f", b"f")
    moved = await lww.rename("f", "d/g")
    assert moved.status == 204
    assert (await lww.get("d/g")).etag == moved.etag
    assert (await lww.head("f")).status == 404
    assert (await lww.rename("f", "g")).error == "key_not_found"
    await lww.put("f", b"new")
    assert (await lww.rename("f", "d/g", if_none_match="*")).error == "exists"
    assert (await lww.rename("f", "d/g", if_match='"other"')).error == "conflict"
    assert (await lww.rename("f", "x", x_copy_source_if_match='"other"')).error == "conflict"
    assert (await lww.rename("f", "d")).error == "is_directory"
    assert (await lww.rename("f", "d/g/h")).error == "not_directory"
    assert (await lww.rename("f", "f")).status == 204
    assert (await lww.rename("f", "d/g")).status == 204
    assert (await lww.get("d/g")).body == b"new"
    assert (await lww.rename("d/g", "last&")).status == 204
    assert (await lww.get("last")).body == b"new"
    assert (await lww.rename("last", "a&rename_to=b")).error == "bad_request"


async def test_renaming_directories(lww: WireClient) -> None:
    await lww.put("old/a", b"a")
    await lww.put("old/sub/")
    await lww.put("full/f")
    await lww.put("empty/")
    await lww.put("file")
    assert (await lww.rename("old", "full")).error == "not_empty"
    assert (await lww.rename("old", "file")).error == "not_directory"
    assert (await lww.rename("old", "old/sub/deeper")).error == "bad_request"
    assert (await lww.rename("nothing/", "new/")).error == "key_not_found"
    assert (await lww.rename("old", "empty", if_none_match="*")).error == "exists"
    assert (await lww.rename("old/", "empty/")).status == 204
    assert (await lww.head("old")).status == 404
    assert (await lww.get("empty/a")).body == b"a"
    assert (await lww.head("empty/sub")).headers["x-is-file"] == "false"


async def test_renaming_a_directory_tells_what_became_of_the_files_that_are_known(cas: WireClient) -> None:
    known: dict[str, str | None] = {"gone": "x", "any": None}
    for name in ("a%20b", "changed", "any", "other"):
        known.setdefault(name, (await cas.put(f"old/{name}", b"1", if_none_match="*")).etag.strip('"'))
    await cas.put("old/changed", b"2", if_match=f'"{known["changed"]}"')
    del known["other"]
    body = json.dumps({"known": known}).encode()
    moved = await cas.ask("POST", "/keys/old/?rename_to=new/", body)
    assert moved.status == 200
    etags = {name: (await cas.get(f"new/{name}")).etag.strip('"') for name in ("a%20b", "any")}
    assert moved.json == {"moved": etags}


@pytest.mark.parametrize("body", ["known", "{}", '{"known": []}', '{"known": {"a": 1}}', '{"known": {"a": ""}}'])
async def test_what_is_known_has_a_form(cas: WireClient, body: str) -> None:
    await cas.put("old/a", b"1", if_none_match="*")
    assert (await cas.ask("POST", "/keys/old/?rename_to=new/", body.encode())).error == "bad_request"
    assert (await cas.get("old/a")).status == 200


@pytest.mark.parametrize(("method", "target"), [("POST", "/keys/old/?rename_to=new/"), ("PUT", "/meta/old/a?attr=b")])
async def test_a_body_that_is_no_content_fits_into_memory(lww: WireClient, method: str, target: str) -> None:
    """What is too large to be held is refused before it has come."""
    await lww.put("old/a")
    head = f"{method} {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {1 << 40}\r\nIdempotency-Key: {'x' * 16}\r\n\r\n"
    await lww.send(head.encode() + b" ")
    assert (await lww.reply()).error == "too_large"


async def test_listing_one_level_and_all(lww: WireClient) -> None:
    for name in ("a", "d/b", "d/e/c", "z"):
        await lww.put(name, name.encode())
    await lww.put("d/empty/")
    top = await lww.list("delimiter=/")
    assert (top["keys"], top["prefixes"], top["truncated"]) == (["a", "z"], ["d/"], False)
    below = await lww.list("prefix=d/&delimiter=/")
    assert (below["keys"], below["prefixes"]) == (["d/b"], ["d/e/", "d/empty/"])
    everything = await lww.list()
    assert (everything["keys"], everything["prefixes"]) == (["a", "d/b", "d/e/c", "z"], ["d/empty/"])
    empty = await lww.list("prefix=d/empty/&delimiter=/")
    assert (empty["keys"], empty["prefixes"], empty["exists"]) == ([], [], True)
    assert (await lww.list("prefix=nothing/"))["exists"] is False


async def test_listing_in_pages(lww: WireClient) -> None:
    names = sorted([f"f{number:02}" for number in range(7)] + ["d/x", "e/y"])
    for name in names:
        await lww.put(name)
    for delimiter, expected in (("", names), ("/", sorted(n.split("/")[0] + "/" * ("/" in n) for n in names))):
        seen: list[str] = []
        after = ""
        while True:
            page = await lww.list(f"limit=2&delimiter={delimiter}&after={after}")
            assert len(page["keys"]) + len(page["prefixes"]) <= 2
            seen += sorted(page["keys"] + page["prefixes"])
            if not page["truncated"]:
                break
            after = page["next"]
        assert seen == expected


async def test_listing_with_details(lww: WireClient) -> None:
    etag = (await lww.put("d/f", b"12345")).etag
    (entry,) = (await lww.list("detail=1"))["keys"]
    assert (entry["key"], entry["size"], f'"{entry["etag"]}"') == ("d/f", 5, etag)
    assert entry["mtime"] > 1e9


async def test_our_own_records_are_never_listed_nor_reached(lww: WireClient) -> None:
    """The self-test has left its record there by now."""
    await lww.put(".asya0", b"")
    await lww.put("-", b"")
    for query in ("", "delimiter=/", "limit=1", "limit=2", "prefix=.asya", "prefix=.asya/"):
        page = await lww.list(query)
        names = page["keys"] + page["prefixes"]
        while page["truncated"]:
            page = await lww.list(f"{query}&after={page['next']}")
            names += page["keys"] + page["prefixes"]
        assert set(names) <= {".asya0", "-"}, query
        assert query != "" or len(names) == 2
    assert (await lww.get(".asya/promises")).error == "bad_request"
    assert (await lww.put("%2easya/x")).error == "bad_request"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "delimiter=-", "color=red", "limit=1&limit=2"])
async def test_listings_refuse_what_they_do_not_know(lww: WireClient, query: str) -> None:
    reply = await lww.ask("GET", f"/keys/?{query}")
    assert (reply.status, reply.error) == (400, "bad_request")


async def test_attributes(lww: WireClient) -> None:
    before = (await lww.put("f", b"content")).etag
    value = json.dumps({"attr": "user.asya.tone", "value": "höflich"}).encode()
    set_one = await lww.ask("PUT", "/meta/f?attr=user.asya.tone", value)
    assert (set_one.status, set_one.etag == before) == (204, False)
    assert (await lww.ask("GET", "/meta/f")).json == {"attrs": ["user.asya.tone"]}
    assert (await lww.ask("GET", "/meta/f?attr=user.asya.tone")).json["value"] == "höflich"
    assert (await lww.get("f")).etag == set_one.etag
    stale = await lww.ask("PUT", "/meta/f?attr=b", b'{"value": "x"}', {"If-Match": before})
    assert stale.error == "conflict"
    assert (await lww.ask("DELETE", "/meta/f?attr=user.asya.tone")).status == 204
    assert (await lww.ask("DELETE", "/meta/f?attr=user.asya.tone")).error == "key_not_found"
    assert (await lww.ask("GET", "/meta/nothing")).error == "key_not_found"
    for bad in (b"", b"[]", b'{"value": 1}', b'{"attr": "b", "value": "x"}'):
        assert (await lww.ask("PUT", "/meta/f?attr=a", bad)).error == "bad_request", bad


async def test_health_is_on_the_socket_too(lww: WireClient) -> None:
    assert (await lww.ask("GET", "/healthz")).status == 200
    assert (await lww.ask("GET", "/readyz")).status == 200
    await lww.put(quote("secret name"), b"secret content")
    text = (await lww.ask("GET", "/metrics")).body.decode()
    assert 'asya_proxy_requests_total{mount="state",op="write",outcome="ok"} 1.0' in text
    assert "secret" not in text
    assert (await lww.ask("GET", "/elsewhere")).error == "bad_request"


async def test_unknown_methods_are_refused(lww: WireClient) -> None:
    for method, target in (("OPTIONS", "/keys/f"), ("PATCH", "/keys/d/"), ("PUT", "/keys/"), ("POST", "/meta/f")):
        assert (await lww.ask(method, target)).error == "bad_request", (method, target)


async def test_read_only_mounts_refuse_every_change(start) -> None:  # type: ignore[no-untyped-def]
    client = await (await start(STATE_READ_ONLY="true")).client()
    for reply in (
        await client.put("f"),
        await client.append("f", b""),
        await client.delete("f"),
        await client.put("d/"),
        await client.delete("d/"),
        await client.rename("f", "g"),
        await client.ask("PUT", "/meta/f?attr=a", b'{"value": ""}'),
    ):
        assert (reply.status, reply.error) == (403, "read_only")
    assert (await client.get("f")).error == "key_not_found"


async def test_clients_do_not_wait_for_each_other(start) -> None:  # type: ignore[no-untyped-def]
    proxy = await start()
    clients = [await proxy.client() for _ in range(20)]
    replies = await asyncio.gather(*(c.put("f", b"x" * 1000, if_none_match="*") for c in clients))
    assert sorted(reply.status for reply in replies) == [204] + [412] * 19
