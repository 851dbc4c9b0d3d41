import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Choices and exports of these tests stay apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEG_EXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
