"""Lists the packages of the six top-level folders; everything else is in pyproject.toml.

The table `tool.setuptools.package-dir` there says which folder installs under which name. The subpackages
of each folder are found here, so that a new one needs no entry, and no folder can ever become a top-level
package called `ir` or `compiler`.
"""

import tomllib
from pathlib import Path

from setuptools import find_packages, setup

folders = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
subpackages = [f"{name}.{sub}" for name, folder in folders.items() for sub in find_packages(folder)]
setup(packages=[*folders, *subpackages])
