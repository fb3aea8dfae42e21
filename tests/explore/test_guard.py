"""Nobody asks from another page, by a name that is not ours, with too large a body, or without the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sim.explore.app import Page, make_app
from sim.explore.guard import MOST_BODY_BYTES, Rules, is_loopback
from tests.explore.conftest import PORT, SMALL, Client


@pytest.mark.parametrize(
    ("heads", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": f"evil.example:{PORT}"}, 421),
        ({"host": f"192.168.1.7:{PORT}"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"host": f"127.0.0.1:{PORT}@evil.example"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"https://127.0.0.1:{PORT}"}, 403),
        ({"origin": f"http://127.0.0.1:{PORT + 1}"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-length": str(MOST_BODY_BYTES + 1)}, 413),
    ],
)
def test_a_hostile_request_is_refused(client: Any, heads: dict[str, str], status: int) -> None:
    sent = {"content-type": "application/json", **heads}
    found = client.post("/api/predict", content=b'{"scenario": ""}', headers=sent)
    assert found.status_code == status
    assert found.json()["error"]
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
def test_a_question_is_guarded_by_either_of_its_names(client: Any, path: str) -> None:
    """`POST /predict` is short for `POST /api/predict`."""
    sent = {"content-type": "application/json"}
    assert "scenario" in client.post(path, content=b'{"scenario": ""}', headers=sent).json()["error"]
    foreign = {**sent, "origin": "http://evil.example"}
    assert client.post(path, content=b"{}", headers=foreign).status_code == 403


def test_nothing_is_let_in_by_a_preflight(client: Any) -> None:
    asks = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    found = client.request("OPTIONS", "/api/predict", headers=asks)
    assert found.status_code == 403
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_a_body_that_grows_beyond_the_limit_is_cut_off(client: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100_000

    found = client.post("/api/predict", content=pieces(), headers={"content-type": "application/json"})
    assert found.status_code == 413


def test_the_page_may_load_nothing_from_elsewhere(client: Any) -> None:
    for path in ("/", "/main.js", "/page.css", "/api/start"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
    assert client.get("/docs").status_code == 404


@pytest.mark.parametrize("path", ["/api/scenarios/..%2F..%2Fpyproject", "/../app.py", "/%2e%2e/app.py"])
def test_no_file_but_its_own_is_read(client: Any, path: str) -> None:
    found = client.get(path)
    assert found.status_code in (404, 422, 405)
    assert "dependencies" not in found.text


def test_beyond_this_machine_a_token_is_asked_for() -> None:
    app = make_app(Page(SMALL, "small", None), Rules(PORT, "a-secret", ("localhost", "box.local")), 1)
    found = Client(app, f"192.168.1.7:{PORT}")
    try:
        assert found.get("/").status_code == 200
        assert found.get("/api/start").status_code == 401
        assert found.get("/api/start", headers={"authorization": "Bearer wrong"}).status_code == 401
        ours = {"authorization": "Bearer a-secret"}
        assert found.get("/api/start", headers=ours).status_code == 200
        assert found.get("/api/start", headers={**ours, "host": f"evil.example:{PORT}"}).status_code == 421
        file = SMALL.replace("{name: Llama-3.2-3B}", "{gguf: /etc/passwd}")
        refused = found.post("/api/predict", json={"scenario": file}, headers=ours)
        assert refused.status_code == 422
        assert "are not read for others" in refused.json()["error"]
    finally:
        found.close()


def test_loopback_is_what_leads_nowhere_else() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "box.local", "")] == [False] * 5
