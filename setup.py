"""The part of the package that must be code: a wheel carries configs and tools in MMSegmentation's folder ``.mim``."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CARRIED = ("myconfigs", "tools")


class BuildWithTools(build_py):
    """Copies ``myconfigs/`` and ``tools/`` to ``mmseg_ext/.mim/``; an editable install reads them where they are."""

    def carried(self) -> dict[str, str]:
        """Return where each file goes in the build, and where it comes from."""
        files = (path.relative_to(ROOT) for name in CARRIED for path in sorted((ROOT / name).rglob("*")))
        kept = (path for path in files if path.suffix in (".py", ".sh") and "__pycache__" not in path.parts)
        return {str(Path(self.build_lib, "mmseg_ext", ".mim", path)): str(path) for path in kept}

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        if not self.editable_mode:
            for target, source in self.carried().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return what is built, for the wheel's list of files."""
        return [*super().get_outputs(include_bytecode), *(() if self.editable_mode else self.carried())]

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs."""
        return [*super().get_source_files(), *self.carried().values()]


setup(cmdclass={"build_py": BuildWithTools})
