"""What every test stands on: nobody's own catalogue is read."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_catalogue_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Settings of whoever runs the tests stay out of them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "settings"))
    monkeypatch.setenv("SIM_CATALOG", "")
