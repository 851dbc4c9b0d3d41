import importlib.util

import pytest


@pytest.fixture(scope="session")
def load_tool(root):
    """Return a function that imports a script of tools/ as a module: (name) -> module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"{name}_tool", root / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(root / "tools")  # tools import one another, as scripts of one folder do
            spec.loader.exec_module(module)
        return module

    return load
