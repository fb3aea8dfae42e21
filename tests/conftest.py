"""What every test stands on: nobody's own catalogue is read, and no busy machine fails a property."""

from __future__ import annotations

import pytest
from hypothesis import settings

# a deadline measures the machine that the tests share with others, not the code
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
# a check of one commit has one answer: what scripts/check draws depends on the tests alone. Plain pytest explores.
settings.register_profile("repeatable", deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _no_catalogue_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Settings of whoever runs the tests stay out of them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "settings"))
    monkeypatch.setenv("SIM_CATALOG", "")
