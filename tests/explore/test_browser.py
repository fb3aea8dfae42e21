"""The page in a real browser: main paths, keyboard alone, narrow, enlarged, dark, and axe's judgement.

One server and one browser for all; skipped where no Chromium is.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright (extra `test`) drives the browser")

import httpx
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from sim.explore.app import Page, make_app
from sim.explore.guard import Rules
from sim.explore_cmd import listening
from simulator.files import loads
from simulator.library import find_scenario
from simulator.run.predict import predict
from simulator.scenario import Scenario
from tests.explore.conftest import SMALL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"),
    # what Playwright leaves open as its loop ends is not ours
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server on loopback, in a thread of its own."""
    door = listening("127.0.0.1", 0)
    port = door.getsockname()[1]
    app = make_app(Page(SMALL, "small", str(find_scenario("five_devices").parent)), Rules(port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        # as root, in a container, there is no sandbox to be had; the page is our own
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Seen:
    """A page, and what it complained of or fetched from elsewhere."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **how)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error.stack)))
        self.page.on("console", self._heard)
        self.page.on("request", lambda one: self._asked(one.url, address))
        self.page.goto(address)
        self.settled()

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def _asked(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.faults.append(f"fetched {url}")

    def settled(self) -> None:
        self.page.wait_for_selector('#progress[data-quick="false"]', timeout=WAIT_MS)

    def rate(self) -> float:
        return float(self.page.locator("#rate").inner_text().split()[0])


@pytest.fixture
def seen(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Seen]:
    how = getattr(request, "param", {"viewport": {"width": 1280, "height": 900}})
    found = Seen(browser, address, **how)
    yield found
    assert found.faults == []
    found.context.close()


def until(page: Any, expression: str) -> None:
    """Wait until an expression holds; Playwright's own way evaluates text, which the page's policy forbids."""
    ends = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < ends, expression
        page.wait_for_timeout(50)


def serious(page: Any) -> list[str]:
    """What axe-core finds, of the two kinds that keep people out."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_the_page_shows_the_figures_of_the_command_line(seen: Seen) -> None:
    expected = predict(loads(SMALL, Scenario)).document()
    assert seen.rate() == pytest.approx(expected["tokens_per_s"]["median"], rel=1e-2)
    text = seen.page.locator("#map").inner_text()
    for row in expected["placement"]:
        assert f"layers {row['first_layer']}–{row['last_layer']} ({row['layers']})" in text
    assert expected["bottleneck"]["sentence"] in seen.page.locator("#where").inner_text()
    assert seen.page.locator("#whatif li").count() == len(expected["what_if"])
    assert serious(seen.page) == []


def test_a_change_moves_the_answer_and_can_be_undone(seen: Seen) -> None:
    page, before = seen.page, seen.rate()
    page.select_option("#which", "laptop")
    page.fill("#field-devices-laptop-link-rtt", "80 ms")
    page.keyboard.press("Enter")
    page.wait_for_selector("#difference.bad", timeout=WAIT_MS)
    seen.settled()
    assert seen.rate() < before
    assert "rtt: 80 ms}   # a cable" in page.input_value("#yaml")
    page.click("#undo")
    page.wait_for_selector("#difference.good", timeout=WAIT_MS)
    seen.settled()
    assert page.input_value("#yaml") == SMALL
    assert seen.rate() == before


def test_a_fault_stands_at_its_field_in_the_words_of_files(seen: Seen) -> None:
    page = seen.page
    page.select_option("#which", "laptop")
    page.fill("#field-devices-laptop-link-rtt", "80")
    page.keyboard.press("Enter")
    why = page.locator("#field-devices-laptop-link-rtt-why")
    why.wait_for(timeout=WAIT_MS)
    assert "80 has no unit; write for example '80 ms'" in why.inner_text()
    assert page.get_attribute("#field-devices-laptop-link-rtt", "aria-invalid") == "true"
    assert "line 10" in page.locator("#yaml-faults").inner_text()
    assert serious(page) == []
    page.fill("#field-devices-laptop-kind", "no such thing")
    page.keyboard.press("Enter")
    page.fill("#yaml", SMALL.replace("32 GB", "8 GB"))
    until(page, "document.querySelector('#map').innerText.includes('8')")
    page.wait_for_selector("#yaml[aria-invalid=false]", timeout=WAIT_MS)


def test_the_keyboard_is_enough(seen: Seen) -> None:
    page = seen.page
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "slider":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    layers = int(page.evaluate("document.activeElement.ariaValueNow"))
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#difference, #headline p", timeout=WAIT_MS)
    until(page, f"document.activeElement.ariaValueNow == {layers - 1}")
    page.keyboard.press("PageDown")
    until(page, f"document.activeElement.ariaValueNow == {layers - 6}")
    seen.settled()
    page.keyboard.press("Control+z")
    page.focus("#tab-explore")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-compare"
    assert page.locator("#panel-compare").is_visible()
    page.focus("#tab-explore")
    page.keyboard.press("Enter")
    page.focus("#field-model-name")
    page.keyboard.press("Control+a")
    page.keyboard.type("llama 3.1 8b")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#yaml').value.includes('Llama-3.1-8B')")


def test_dragging_a_boundary_answers_and_old_requests_are_dropped(seen: Seen) -> None:
    page = seen.page
    page.locator(".layers .edge").first.scroll_into_view_if_needed()
    box = page.locator(".layers .edge").first.bounding_box()
    page.mouse.move(box["x"] + 6, box["y"] + 20)
    page.mouse.down()
    for step in range(1, 16):
        page.mouse.move(box["x"] - 6 * step, box["y"] + 20)
    page.mouse.up()
    page.wait_for_selector("#difference", timeout=WAIT_MS)
    seen.settled()
    assert "placement: {layers: {" in page.input_value("#yaml")
    assert "# a comment that stays" in page.input_value("#yaml")


def test_who_drags_or_types_is_not_disturbed_by_answers(seen: Seen) -> None:
    page = seen.page
    page.focus("#distance")
    for _ in range(15):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(40)
    until(page, "document.querySelector('#yaml').value.includes('rtt: ')")
    shown = page.input_value("#field-devices-macbook-link-rtt")
    assert float(shown.split()[0]) > 10
    page.focus("#field-devices-macbook-memory")
    page.keyboard.press("Control+a")
    page.keyboard.type("1")
    seen.settled()
    page.keyboard.type("6 GB")
    assert page.input_value("#field-devices-macbook-memory") == "16 GB"
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#yaml').value.includes('memory: 16 GB')")
    assert f"rtt: {shown}" in page.input_value("#yaml")


HOW = {
    "narrow": {"viewport": {"width": 360, "height": 740}},
    # as a browser does it: half as many points of CSS on the same screen
    "200 %": {"viewport": {"width": 640, "height": 450}, "device_scale_factor": 2},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}


@pytest.mark.parametrize("seen", list(HOW.values()), ids=list(HOW), indirect=True)
def test_it_fits_and_reads_well_however_it_is_shown(seen: Seen) -> None:
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert serious(page) == []
    for tab in ("Compare", "Place", "Plan", "Sweep", "Dropout", "Swarm", "Live"):
        page.get_by_role("tab", name=tab, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert serious(page) == []


def test_the_other_views_answer(seen: Seen) -> None:
    page = seen.page
    for tab, button, sign in (
        ("Compare", "Keep the scenario as it is now", "#panel-compare li + li"),
        ("Compare", "Compare", "#panel-compare .scroll"),
        ("Sweep", "Sweep", "#panel-sweep svg"),
        ("Dropout", "laptop leaves", "#panel-dropout dl"),
        ("Truth", None, "#panel-truth .scroll"),
        ("Live", "Look", "#panel-live .fault"),
    ):
        page.get_by_role("tab", name=tab, exact=True).click()
        if button:
            page.locator(f"#panel-{tab.lower()}").get_by_role("button", name=button, exact=True).click()
        page.locator(sign).first.wait_for(timeout=WAIT_MS)
        assert serious(page) == []


def test_what_is_shared_opens_offline_with_the_scenario_inside(
    seen: Seen, browser: Any, tmp_path: Path
) -> None:
    with seen.page.expect_download() as waiting:
        seen.page.click("#share")
    file = tmp_path / "shared.html"
    waiting.value.save_as(file)
    offline = browser.new_context(offline=True)
    page, asked = offline.new_page(), list[str]()
    page.on("request", lambda one: asked.append(one.url))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert page.locator("#scenario").inner_text() == SMALL
    document = json.loads(page.locator("#prediction").text_content())
    assert document == json.loads(json.dumps(predict(loads(SMALL, Scenario)).document()))
    assert page.locator("svg").count() >= 4
    assert "<script" not in file.read_text()
    offline.close()


def test_a_page_elsewhere_gets_nothing(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://evil.example/", lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html")
    )
    page.goto("http://evil.example/")
    for how in (
        '{mode: "cors"}',
        '{method: "POST", body: "{}"}',
        '{method: "POST", headers: {"content-type": "application/json"}, body: "{}"}',
    ):
        assert (
            page.evaluate(f"fetch('{address}api/start', {how}).then((one) => one.text(), () => 'refused')")
            == "refused"
        )
    assert httpx.get(f"{address}api/start").status_code == 200
    context.close()
