"""What pyproject.toml cannot say: the files of configs/ travel inside the package, as paddle_inline/configs."""

import os

from setuptools import find_packages, setup

folders = {"paddle_inline." + folder.replace(os.sep, "."): folder for folder, _, _ in os.walk("configs")}

setup(
    packages=[*find_packages(include=["paddle_inline*", "torch_ref*", "convert*"]), *folders],
    package_dir=folders,
    package_data={"": ["py.typed", "templates/*", "*.yaml", "*.yml"]},
)
