import sys
from pathlib import Path

import pytest

# as for a script of that folder
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "benchmark"))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Choices and exports of these tests stay apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEG_EXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
