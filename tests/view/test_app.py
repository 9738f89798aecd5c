"""The viewer's server: exact answers to whoever holds the token, a clear refusal to everything else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from regard.view.answers import Answers, unpacked
from tests.view import long, traces
from tests.view.test_pyramid import dense

starlette = pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx")

TOKEN = "a-token"


def client(*named: tuple[str, Any], token: str | None = TOKEN, host: str = "127.0.0.1:5000") -> Any:
    from starlette.testclient import TestClient

    from regard.view.app import make_app

    app = make_app(Answers(named or [("long", long.trace(700, groups=1))]), TOKEN, ["127.0.0.1"])
    headers = {"host": host} | ({"X-Regard-Token": token} if token else {})
    return TestClient(app, base_url=f"http://{host}", headers=headers)


def asked(of: Any, what: str, **fields: object) -> tuple[dict[str, Any], torch.Tensor]:
    answer = of.get(f"/ask/{what}", params={name: str(value) for name, value in fields.items()})
    assert answer.status_code == 200, answer.text
    about, numbers = unpacked(answer.content)
    return about, torch.tensor(numbers)


def test_tiles_rows_and_columns_are_the_exact_weights() -> None:
    trace = long.trace(700, groups=1)
    of, weights = client(("long", trace)), dense(trace, 0, 1)
    about, numbers = asked(of, "tile", layer=0, head=1, row=3, key=1)
    assert (about["rows"], about["keys"], about["begin"]) == (128, 128, [384, 128])
    cells = numbers[: 128 * 128].view(128, 128)
    torch.testing.assert_close(cells.double(), weights[384:512, 128:256], rtol=2e-6, atol=0)
    about, row = asked(of, "row", layer=0, head=1, row=600)
    torch.testing.assert_close(row[:601].double(), weights[600, :601], rtol=2e-6, atol=0)
    assert row[601:].isnan().all()
    assert about["numbers"]["entropy"] == pytest.approx(float(-(row[:601] * row[:601].log()).sum()), rel=1e-5)
    _, column = asked(of, "column", layer=0, head=1, key=77)
    assert column[:77].isnan().all()
    torch.testing.assert_close(column[77:].double(), weights[77:, 77], rtol=2e-6, atol=0)


def test_a_head_brings_its_tracks_and_its_map() -> None:
    about, _ = asked(client(), "head", layer=0, head=1)
    layer = about["layer"]
    assert layer["heads"] == [1]
    assert {"entropy"} <= set(layer["rows"]) and {"received"} <= set(layer["keys"])
    assert layer["maps"]["overview"]["mean"]["shape"][0] == 1


def test_a_step_names_the_strongest_links_of_every_head() -> None:
    trace = long.trace(300)
    about, _ = asked(client(("long", trace)), "step", layer=0, head=0, row=250)
    for head in (0, 1):
        key, weight = about["links"][str(head)][0]
        row = dense(trace, 0, head)[250]
        assert key == int(row.argmax()) and weight == pytest.approx(float(row.max()), rel=1e-5)


def test_the_page_starts_small_and_says_what_may_be_asked() -> None:
    answer = client().get("/")
    assert answer.status_code == 200
    scene = json.loads(re.findall(r'id="scene">(.*?)</script>', answer.text, re.S)[0])
    assert scene["served"] == {"names": ["long"], "trace": 0, "deep": True}
    assert scene["layers"][0]["rows"] == {}
    assert "connect-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"layer": 1}, 404),
        ({"layer": "x"}, 400),
        ({"layer": "-1"}, 400),
        ({"layer": "9" * 40}, 400),
        ({"head": 2}, 404),
        ({"row": 6}, 404),
        ({"key": 99999999}, 404),
        ({"zr": 40}, 404),
        ({"zk": "1.5"}, 400),
        ({"which": "median"}, 400),
        ({"trace": 1}, 404),
        ({"batch": 1}, 404),
        ({"row": "<script>"}, 400),
    ],
)
def test_tiles_out_of_range_are_refused_in_a_sentence(fields: Mapping[str, object], status: int) -> None:
    params = {"layer": 0, "head": 0, "row": 0, "key": 0} | fields
    answer = client().get("/ask/tile", params={name: str(value) for name, value in params.items()})
    assert answer.status_code == status
    assert answer.json()["error"]


def test_missing_fields_unknown_questions_and_methods_are_refused() -> None:
    of = client()
    assert of.get("/ask/tile").status_code == 400
    assert of.get("/ask/nothing").status_code == 404
    assert of.get("/nothing").status_code == 404
    assert of.post("/ask/tile").status_code == 405
    assert of.get("/?trace=7").status_code == 404 and of.get("/?batch=x").status_code == 400


def test_weights_that_were_not_kept_are_refused() -> None:
    trace = long.trace(400)
    trace.layers[0].kept = None
    answer = client(("long", trace)).get("/ask/row?layer=0&head=0&row=3")
    assert answer.status_code == 400 and "not kept" in answer.json()["error"]


def test_only_its_own_page_with_the_token_is_answered() -> None:
    assert client(token=None).get("/").status_code == 401
    assert client(token="wrong").get("/ask/links").status_code == 401
    assert client(token=None).get(f"/?token={TOKEN}").status_code == 200
    assert client(host="evil.example").get("/").status_code == 403
    assert client().get("/ask/links", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client().get("/ask/links", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client().get("/ask/links", headers={"Origin": "http://127.0.0.1:5000"}).status_code == 200


def test_a_thousand_at_once_are_answered_or_told_to_wait() -> None:
    from regard.view.app import make_app

    app = make_app(Answers([("long", long.trace(700))]), TOKEN, ["127.0.0.1"])

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as of:
            address = f"/ask/tile?layer=0&head=0&row=0&key=0&zr=1&zk=1&token={TOKEN}"
            answers = await asyncio.gather(*(of.get(address) for _ in range(1000)))
            last = await of.get(address)
            return [answer.status_code for answer in (*answers, last)]

    with ThreadPoolExecutor(1) as apart:  # a browser of another test may hold this thread's event loop
        codes = apart.submit(asyncio.run, run()).result()
    assert set(codes) <= {200, 429} and codes.count(200) >= 200 and codes[-1] == 200


def test_hostile_text_leaves_the_page_whole() -> None:
    text = client(("<script>alert(1)</script>", traces.hostile())).get("/").text
    assert text.count("<script") == 3 and "alert(1)</script>" not in text


def test_the_command_opens_traces_and_prints_an_address_with_a_token(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn
    from starlette.testclient import TestClient
    from typer.testing import CliRunner

    from regard.cli.command import app as command

    long.trace(300).save(tmp_path / "one.safetensors")
    started: list[Any] = []

    def run(server: uvicorn.Server, sockets: list[Any]) -> None:
        started.append(server.config.app)
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    ran = CliRunner().invoke(
        command, ["see", str(tmp_path / "one.safetensors"), "--open", "--allow-host", "lab.example"]
    )
    assert ran.exit_code == 0, ran.output
    port, token = re.findall(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{20,})", ran.output)[0]
    for host, status in (("127.0.0.1", 200), ("lab.example", 200), ("other.example", 403)):
        of = TestClient(started[0], base_url=f"http://{host}:{port}")
        assert of.get("/", params={"token": token}).status_code == status
        assert of.get("/").status_code in (401, 403)


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    import socket

    from regard.errors import UserError
    from regard.view.opened import open_traces

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="give another --port"):
            open_traces([("t", traces.decoder(4, 1, 1))], port=taken.getsockname()[1])


def test_traces_of_a_newer_version_or_cut_short_are_refused(tmp_path: Any) -> None:
    from typer.testing import CliRunner

    from regard.cli.command import app as command

    path = tmp_path / "t.safetensors"
    long.trace(60).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole.replace(b"regard trace 2", b"regard trace 9")):
        path.write_bytes(content)
        ran = CliRunner().invoke(command, ["see", str(path), "--open"])
        assert ran.exit_code != 0 and "Traceback" not in ran.output
