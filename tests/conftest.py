"""What every test starts from."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_measurements(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither takes what the machine's user has measured of engines, nor leaves anything there."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
