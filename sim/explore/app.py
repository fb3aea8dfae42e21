"""The routes: the page, its files, and the questions; every answer is made in another process (`pool`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from sim.explore.guard import Guard, Rules
from sim.explore.listing import catalogue, library, start
from sim.explore.models import (
    Compared,
    Dropped,
    Looked,
    Measured,
    Nothing,
    Placed,
    Planned,
    Predicted,
    Refusal,
    Sought,
    Swarmed,
    Swept,
)
from sim.explore.pool import ANSWER_S, Busy, Pool, Refused, Superseded
from simulator.errors import ScenarioError, SimulatorError
from simulator.files.inert import visible
from simulator.scenario import Scenario
from simulator.version import VERSION

__all__ = ["Page", "make_app"]

STATIC = Path(__file__).parent / "static"
LONG_S, PLAN_S = 120.0, 300.0
LOOK_S = 15.0
Client = Annotated[
    str | None, Header(max_length=64, description="of one's requests the newest alone is answered")
]
WORDS: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "a newer request of the same client came"},
    422: {"model": Refusal, "description": "what is wrong, in the words of the command line"},
    503: {"model": Refusal, "description": "too many requests wait"},
}


@dataclass(frozen=True, slots=True)
class Page:
    """What one server shows: the text it begins with, where a model's files and results may lie."""

    text: str
    name: str
    folder: str | None
    results: str = "results"


def make_app(page: Page, rules: Rules, workers: int = 2) -> Guard:
    """The whole server: the guard outside, the routes within."""
    pool = Pool(page.folder, workers, page.text)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        pool.close()

    # its own pages for the API load scripts from a network; the schema is at /api/openapi.json
    app = FastAPI(
        title="sim explore",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=life,
        responses=WORDS,
    )
    app.state.pool = pool
    _with_schema(app)
    _faults(app)
    _questions(app, pool, page)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return Guard(app, rules)


def _with_schema(app: FastAPI) -> None:
    """The schema of scenarios beside that of the routes, which name it."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            ours = Scenario.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
            schemas = plain()["components"]["schemas"]
            schemas.update(ours.pop("$defs"), Scenario=ours)
        return plain()

    app.openapi = whole  # type: ignore[method-assign]


def _questions(app: FastAPI, pool: Pool, page: Page) -> None:
    """Every question as a route."""

    async def ask(
        function: str, body: BaseModel, client: str | None, most_s: float = ANSWER_S, **more: Any
    ) -> Response:
        topic = f"{client} {function}" if client else ""
        asked = body.model_dump() | more
        found = await pool.ask(function, asked, topic=topic, is_quick=bool(asked.get("quick")), most_s=most_s)
        return Response(found, media_type="application/json")

    @app.get("/api/start", summary="The scenario that the page begins with, and the names of others")
    def begin() -> dict[str, Any]:
        return start(page.text, page.name)

    @app.get("/api/scenarios/{name}", summary="The text of a scenario of the library")
    def scenario(name: str) -> dict[str, Any]:
        return {"yaml": library(name), "name": name}

    @app.get("/api/catalogue", summary="Devices, models, networks and engines that are known")
    def known() -> Response:
        return Response(catalogue(), media_type="application/json")

    @app.post("/api/predict", summary="What a scenario is expected to do, as `sim run --json`")
    async def predict(body: Predicted, x_sim_client: Client = None) -> Response:
        return await ask("predict", body, x_sim_client)

    @app.post(
        "/api/compare", summary="Up to four scenarios on the same random numbers, as `sim compare --json`"
    )
    async def compare(body: Compared, x_sim_client: Client = None) -> Response:
        return await ask("compare", body, x_sim_client, LONG_S)

    @app.post("/api/place", summary="Where the layers should go, as `sim place --json`")
    async def place(body: Placed, x_sim_client: Client = None) -> Response:
        return await ask("place", body, x_sim_client, LONG_S)

    @app.post("/api/plan", summary="What to buy within a budget, as `sim plan --json`")
    async def plan(body: Planned, x_sim_client: Client = None) -> Response:
        return await ask("plan", body, x_sim_client, PLAN_S)

    @app.post("/api/sweep", summary="One field along its values, as the rows of `sim sweep`")
    async def sweep(body: Swept, x_sim_client: Client = None) -> Response:
        return await ask("sweep", body, x_sim_client, LONG_S)

    @app.post("/api/dropout", summary="What the loss of a device costs, as `sim dropout --json`")
    async def dropout(body: Dropped, x_sim_client: Client = None) -> Response:
        return await ask("dropout", body, x_sim_client, LONG_S)

    @app.post("/api/swarm", summary="Hours of a swarm, as `sim swarm --json`")
    async def swarm(body: Swarmed, x_sim_client: Client = None) -> Response:
        return await ask("swarm", body, x_sim_client, LONG_S)

    @app.post("/api/measured", summary="A measurement file laid over the prediction")
    async def measured(body: Measured, x_sim_client: Client = None) -> Response:
        return await ask("measured", body, x_sim_client)

    @app.get("/api/truth", summary="What became of predictions, as `sim ledger --json`")
    async def truth(x_sim_client: Client = None) -> Response:
        return await ask("truth", Nothing(), x_sim_client, results=page.results)

    @app.post("/api/look", summary="One look at a running cluster, read only")
    async def look(body: Looked, x_sim_client: Client = None) -> Response:
        return await ask("look", body, x_sim_client, LOOK_S)

    @app.post("/api/discover", summary="Who announces itself on this LAN")
    async def discover(body: Sought, x_sim_client: Client = None) -> Response:
        return await ask("discover", body, x_sim_client, LOOK_S + body.seconds)


def _words(error: SimulatorError) -> dict[str, Any]:
    """What went wrong: the whole message, and each fault of a scenario apart."""
    faults = error.faults if isinstance(error, ScenarioError) else ()
    rows = [{"path": one.path, "reason": visible(one.reason), "line": one.line} for one in faults]
    return {"error": visible(str(error)), "faults": rows}


def _told(request: Request, words: dict[str, Any], status: int) -> JSONResponse:
    """A refusal; to our own page as an answer, as browsers write an error of their own for another status."""
    if request.headers.get("x-sim-page"):
        return JSONResponse(words | {"status": status})
    return JSONResponse(words, status, headers={"retry-after": "2"} if status == 503 else None)


def _faults(app: FastAPI) -> None:
    """Errors in the words of the command line, whatever raised them."""

    @app.exception_handler(Refused)
    async def refused(request: Request, found: Refused) -> JSONResponse:
        return _told(request, _words(found.error) | found.beside, 422)

    @app.exception_handler(SimulatorError)
    async def told(request: Request, error: SimulatorError) -> JSONResponse:
        return _told(request, _words(error), 422)

    @app.exception_handler(RequestValidationError)
    async def unread(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return _told(request, {"error": f"{where}: {first['msg']}", "faults": []}, 422)

    @app.exception_handler(Superseded)
    async def dropped(request: Request, _: Superseded) -> JSONResponse:
        return _told(request, {"error": "a newer request of this page has come", "faults": []}, 409)

    @app.exception_handler(Busy)
    async def busy(request: Request, _: Busy) -> JSONResponse:
        return _told(
            request, {"error": "too many requests wait; try again in some seconds", "faults": []}, 503
        )
