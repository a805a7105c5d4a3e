"""What every test starts from."""

from itertools import count

import pytest

NUMBERS = count()


@pytest.fixture(autouse=True)
def own_measurements(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes what the machine, or another test, has measured of engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"cache-{next(NUMBERS)}"))
