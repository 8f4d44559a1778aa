"""What a wheel holds beside the modules, as leadkit/shipped: models, python-docs and records."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class Build(build_py):
    """In a checkout, and so in an editable installation, data/ is read instead."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shipped = Path(self.build_lib) / "leadkit" / "shipped"
            for part in ("models", "python-docs", "results"):
                left_out = shutil.ignore_patterns("*.py", "__pycache__", "bench", ".*")
                shutil.copytree(
                    Path("data") / part, shipped / part, ignore=left_out, dirs_exist_ok=True
                )


setup(cmdclass={"build_py": Build})
