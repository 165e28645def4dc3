from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_shop import write_shop


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small shop's folder, to be read alone."""
    return write_shop(tmp_path_factory.mktemp("shop") / "data")
