"""The audio routes: the model is a field of a multipart form, and nothing else in the form may change or be read in two ways."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from graftwork_guard.forms import MAX_PART_HEADER_BYTES, MAX_PARTS, Form, FormError, parse_form
from graftwork_guard.routing import Target
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard.fakes import BASE, ENGINE, OTHER, Answer, Call, World, form_fields

AUDIO = ["/v1/audio/transcriptions", "/v1/audio/translations"]
TYPE = b"multipart/form-data; boundary=b"
MODEL = b'content-disposition: form-data; name="model"'
TARGET = Target("medical", ENGINE)
SOUND = b"RIFF\x00\xff\r\n--bb\r\n-- \r\n\r\n"


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"b") -> bytes:
    """A form of (headers, value)."""
    return b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n" for head, value in parts) + b"--" + boundary + b"--\r\n"


FILE = (b'Content-Disposition: form-data; name="file"; filename="a b\xc3\xa9.wav"\r\nContent-Type: audio/wav', SOUND.replace(b"--b", b"--c"))


def built(data: dict[str, Any], sound: bytes = SOUND, name: str = "a.wav") -> tuple[bytes, bytes]:
    """A form as a client's library writes it: content-type and body."""
    request = httpx.Request("POST", "http://x", data=data, files={"file": (name, sound, "audio/wav")})
    return request.headers["content-type"].encode(), request.read()


async def send(world: World, body: bytes, kind: bytes = TYPE, path: str = AUDIO[0], **options: Any) -> Answer:
    return await Call(world.guard, "POST", path, body, content_type=kind, **options).run()


@pytest.mark.parametrize("path", AUDIO)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_the_models_field_is_mapped_and_the_sound_arrives_as_it_was_sent(world: World, path: str, pieces: int) -> None:
    sound = bytes(range(256)) * 1000
    kind, body = built({"model": "medical", "language": "de", "timestamp_granularities[]": ["word", "segment"]}, sound)
    answer = await send(world, body, kind, path, pieces=pieces)
    seen = world.engine.seen[-1]
    assert seen.body == body.replace(b"\r\n\r\nmedical\r\n", b"\r\n\r\n" + ENGINE.encode() + b"\r\n")
    assert seen.headers[b"content-length"] == str(len(seen.body)).encode()
    fields = form_fields(seen)
    assert (fields["model"], fields["language"]) == (ENGINE, "de")
    assert (answer.status, answer.json["model"]) == (200, "medical")
    assert await world.metric('graftwork_tokens_total{alias="medical",digest="3f2a9c41d0e7",version="",kind="prompt"}') == 5


async def test_a_streamed_transcription_names_the_alias_in_every_event(world: World) -> None:
    kind, body = built({"model": "medical", "stream": "true"})
    answer = await send(world, body, kind)
    assert [event["model"] for event in answer.event_documents] == ["medical", "medical"]
    assert ENGINE.encode() not in answer.body
    assert await world.metric('graftwork_time_to_first_token_seconds_count{alias="medical"') == 1


@pytest.mark.parametrize("model", ["medical", BASE])
@pytest.mark.parametrize(
    ("fields", "continuous"),
    [
        ({}, None),
        ({"stream_include_usage": ""}, None),
        ({"stream_include_usage": "no", "stream_continuous_usage_stats": "true"}, "false"),
        ({"stream_continuous_usage_stats": "1", "language": "de"}, "false"),
    ],
)
async def test_a_stream_that_would_not_report_its_tokens_does_and_its_client_does_not_see_it(
    world: World, model: str, fields: dict[str, str], continuous: str | None
) -> None:
    kind, body = built({"model": model, "stream": "true", **fields})
    answer = await send(world, body, kind)
    got = form_fields(world.engine.seen[-1])
    assert (got["stream_include_usage"], got.get("stream_continuous_usage_stats")) == ("true", continuous)
    assert (got["file"], got.get("language")) == (SOUND, fields.get("language"))
    assert b"usage" not in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")
    alias = "medical" if model == "medical" else BASE
    assert (
        await world.metric(
            f'graftwork_tokens_total{{alias="{alias}",digest="{"3f2a9c41d0e7" if alias == "medical" else ""}",version="",kind="prompt"}}'
        )
        == 5
    )


@pytest.mark.parametrize(
    "fields",
    [{"stream": "false"}, {"stream": ""}, {"stream": "maybe"}, {"stream": "true", "stream_include_usage": "yes"}, {"stream_include_usage": "no"}],
)
async def test_what_is_no_stream_or_reports_anyway_stays_as_it_is(world: World, fields: dict[str, str]) -> None:
    kind, body = built(fields)
    await send(world, body, kind)
    assert world.engine.seen[-1].body == body


@pytest.mark.parametrize("model", [None, "", BASE])
async def test_a_form_for_the_base_or_without_a_model_goes_to_the_base_byte_for_byte(world: World, model: str | None) -> None:
    kind, body = built({} if model is None else {"model": model})
    answer = await send(world, body, kind)
    assert world.engine.seen[-1].body == body
    assert answer.json["model"] == BASE


@pytest.mark.parametrize("model", ["nobody", ENGINE, OTHER, "Medical", "medical "])
async def test_an_unknown_model_is_404_and_never_reaches_the_engine(world: World, model: str) -> None:
    answer = await send(world, form((MODEL, model.encode()), FILE))
    assert (answer.status, answer.json["error"]["type"]) == (404, "NotFoundError")
    assert world.engine.seen == []


async def test_an_alias_that_is_loading_and_a_body_over_the_limit_are_refused_as_elsewhere(world: World, tmp_path: Any) -> None:
    assert (await send(world, form((MODEL, b"legal"), FILE))).status == 503
    (tmp_path / "small").mkdir()
    small = World(tmp_path / "small", max_body_bytes=100)
    await small.route()
    assert (await send(small, form((MODEL, b"medical"), FILE))).status == 413


async def test_a_session_chooses_between_two_versions_here_too(world: World) -> None:
    await world.route(candidates={"medical": {"engine": "medical--bbbbbbbbbbbb", "weight": 50}})
    for user in map(str, range(30)):
        kind, body = built({"model": "medical", "user": user})
        await send(world, body, kind)
        await world.post({"model": "medical", "user": user})
        assert form_fields(world.engine.seen[-2])["model"] == world.engine.seen[-1].json["model"]
    assert len({seen.json["model"] for seen in world.engine.seen[1::2]}) == 2


WRONG: list[tuple[bytes, bytes, str]] = [
    (b"application/json", b'{"model":"medical"}', "multipart/form-data"),
    (b"application/x-www-form-urlencoded", b"model=medical", "multipart/form-data"),
    (b"multipart/form-data", form((MODEL, b"medical")), "boundary"),
    (b"multipart/form-data; boundary=", form((MODEL, b"medical")), "boundary"),
    (b"multipart/form-data; boundary=" + b"b" * 71, form((MODEL, b"medical"), boundary=b"b" * 71), "70"),
    (b"multipart/form-data; boundary=b; boundary=c", form((MODEL, b"medical")), "one multipart/form-data"),
    (b"multipart/form-data; boundary*=utf-8''b", form((MODEL, b"medical")), "boundary"),
    (b"multipart/form-data; charset=utf-7; boundary=b", form((MODEL, b"medical")), "charset"),
    (b"multipart/form-data; boundary=b; charset=utf-16", form((MODEL, b"medical")), "charset"),
    (b"multipart/mixed; boundary=b", form((MODEL, b"medical")), "multipart/form-data"),
    (TYPE, b"", "begin with the boundary"),
    (TYPE, b"--b--\r\n", "begin with the boundary"),
    (TYPE, b"preamble\r\n" + form((MODEL, b"medical")), "begin with the boundary"),
    (TYPE, form((MODEL, b"medical"), boundary=b"c"), "begin with the boundary"),
    (TYPE, form((MODEL, b"medical"))[:-4], "followed by"),
    (TYPE, form((MODEL, b"medical"))[:-9], "end with the boundary"),
    (TYPE, form((MODEL, b"medical")) + b"--b\r\n", "nothing may follow"),
    (TYPE, form((MODEL, b"medical\r\n--bc"), FILE), "followed by"),
    (TYPE, form((MODEL, b"medical\r\n--b \r\n"), FILE), "followed by"),
    (TYPE, form((MODEL, b"medical"), (MODEL, b"medical")), "more than one field 'model'"),
    (TYPE, form((MODEL, b"medical"), FILE, (b'CONTENT-DISPOSITION: form-data; NAME="model"', b"legal")), "more than one field 'model'"),
    (TYPE, form((MODEL.replace(b"model", b"stream"), b"true"), (MODEL.replace(b"model", b"stream"), b"")), "more than one field 'stream'"),
    (TYPE, form((MODEL + b'; filename="x"', b"medical")), "is a file"),
    (TYPE, form((MODEL + b"; filename*=utf-8''x", b"medical")), "is a file"),
    (TYPE, form((MODEL, b"\xff")), "not UTF-8"),
    (TYPE, form((b"content-type: text/plain", b"medical")), "content-disposition"),
    (TYPE, form((b"", b"medical")), "headers"),
    (TYPE, form((MODEL + b"\r\n" + MODEL.replace(b"model", b"file"), b"x")), "one content-disposition"),
    (TYPE, form((b'content-disposition: form-data; name="a"; name="model"', b"x")), "one name"),
    (TYPE, form((b"content-disposition: form-data; name*=utf-8''model", b"x")), "one name"),
    (TYPE, form((b'content-disposition: form-data; name="a"; name*0="model"', b"x")), "one name"),
    (TYPE, form((b'content-disposition: form-data; filename="a"', b"x")), "one name"),
    (TYPE, form((b'content-disposition: attachment; name="model"', b"x")), "form-data; name"),
    (TYPE, form((b'content-disposition: form-data; name="mo\\del"', b"x")), "backslash"),
    (TYPE, form((b'content-disposition: form-data; filename="a\\\\"; name="model"', b"x")), "backslash"),
    (TYPE, form((b'content-disposition: form-data; name="model', b"x")), "form-data; name"),
    (TYPE, form((b'content-disposition: form-data; name = "model"', b"x")), "form-data; name"),
    (TYPE, form((b'content-disposition : form-data; name="model"', b"x")), "lines of"),
    (TYPE, form((b'content-disposition: form-data;\r\n name="model"', b"x")), "not folded"),
    (TYPE, form((b'content-disposition: form-data; name="mod\nel"', b"x")), "control characters"),
    (TYPE, form((b'content-disposition: form-data; name="mod\x00el"', b"x")), "control characters"),
    (TYPE, form((MODEL + b"\r\ncontent-transfer-encoding: base64", b"bWVkaWNhbA==")), "content-transfer-encoding"),
    (TYPE, form((MODEL + b"\r\nx: " + b"y" * MAX_PART_HEADER_BYTES, b"medical")), "within 8192 bytes"),
    (TYPE, form(*[(b"content-disposition: form-data; name=x", b"")] * (MAX_PARTS + 1)), "1000 parts"),
    (TYPE, form((MODEL, b"medical")).replace(b"\r\n", b"\n"), "begin with the boundary"),
]


@pytest.mark.parametrize(("kind", "body", "words"), WRONG, ids=[str(number) for number in range(len(WRONG))])
async def test_a_form_that_could_be_read_in_two_ways_is_400_with_the_rule(world: World, kind: bytes, body: bytes, words: str) -> None:
    answer = await send(world, body, kind)
    assert (answer.status, answer.json["error"]["type"]) == (400, "BadRequestError")
    assert words in answer.json["error"]["message"]
    assert world.engine.seen == []


async def test_two_content_types_are_refused(world: World) -> None:
    answer = await send(world, form((MODEL, b"medical")), headers=[(b"content-type", b"multipart/form-data; boundary=c")])
    assert answer.status == 400
    assert world.engine.seen == []


@pytest.mark.parametrize(
    "kind",
    [
        b'multipart/form-data; boundary="b"',
        b"Multipart/Form-Data;Boundary=b",
        b"multipart/form-data; charset=UTF-8; boundary=b",
        TYPE + b'; charset="utf-8"',
    ],
)
@pytest.mark.parametrize(
    "head",
    [
        MODEL,
        b"Content-Disposition: form-data; name=model",
        MODEL + b"\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit\r\nContent-Length: 7",
    ],
)
def test_what_clients_write_in_other_words_is_the_same(kind: bytes, head: bytes) -> None:
    body = form(FILE, (head, b"medical"))
    assert parse_form([kind], body).encode(TARGET) == form(FILE, (head, ENGINE.encode()))


@pytest.mark.parametrize("name", ["a.wav", 'quote".wav', "back\\slash.wav", "ü☃.wav", "semi;colon=.wav", "model", 'name="model"'])
def test_whatever_a_file_is_called_it_is_no_field(name: str) -> None:
    kind, body = built({"model": "medical"}, name=name)
    assert parse_form([kind], body).model == "medical"


def test_a_large_sound_is_found_the_end_of_at_once() -> None:
    body = form((MODEL, b"medical"), (FILE[0], b"\r\n--" * 2_000_000))
    assert parse_form([TYPE], body).model == "medical"


_NAMES = st.sampled_from(["language", "prompt", "response_format", "temperature", "models", "Model", "user", "x"])
_VALUES = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
_FILES = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)


@given(st.dictionaries(_NAMES, _VALUES, max_size=5), st.none() | _VALUES, st.binary(max_size=200), _FILES)
def test_the_model_is_replaced_and_every_other_byte_is_as_it_was(fields: dict[str, str], model: str | None, sound: bytes, name: str) -> None:
    kind, body = built(fields if model is None else {**fields, "model": model}, sound, f"{name}.wav")
    found = parse_form([kind], body)
    assert (found.model, found.user) == (model, fields.get("user"))
    assert found.encode(Target(BASE)) == body
    if model is None:
        assert found == Form(body, user=fields.get("user"))
        return
    begin, end = found.span
    assert body[begin:end] == model.encode()
    again = parse_form([kind], found.encode(TARGET))
    assert again.model == ENGINE
    assert again.body == body[:begin] + ENGINE.encode() + body[end:]


_PIECES = st.sampled_from(
    [b"--b", b"--", b"\r\n", b"\r", b"\n", b"b", MODEL, b"\r\n\r\n", b"medical", FILE[0], b'"', b";", b"=", b"\\", b"\x00", form((MODEL, b"x"))]
)


@given(st.lists(_PIECES, max_size=14).map(b"".join), st.lists(_PIECES, max_size=3).map(b"".join))
def test_bytes_in_any_order_are_a_form_or_refused(body: bytes, kind: bytes) -> None:
    for content_types in ([TYPE], [kind], [TYPE + kind], [], [TYPE, kind]):
        try:
            found = parse_form(content_types, body)
        except FormError:
            continue
        assert body.startswith(b"--b\r\n")
        assert found.body == body
