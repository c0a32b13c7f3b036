"""PaddleDetection, imported, mended where its wheel needs it, with our backbone in its registry."""

from __future__ import annotations

import copy
import functools
from typing import Any

from ..toolkits.launcher import require
from ..toolkits.mends import apply_mends
from .backbone import InLineBackbone
from .imports import ppdet

INSTALL = (
    "pip install --no-deps paddledet==2.6.0, and what it imports: pip install 'numpy<2' 'setuptools<81' "
    "'opencv-python-headless<4.12' filelock matplotlib pandas prettytable pycocotools pyyaml requests scikit-learn "
    "scipy shapely six terminaltables tqdm typeguard"
)


@functools.cache
def register() -> list[str]:
    """Import PaddleDetection, mend what fails on this Paddle, and register `InLineBackbone`.

    Returns:
        `name: reason` of each mend that was needed.

    Raises:
        MissingPackageError: the toolkit, or what it imports, is not installed.
    """
    require("ppdet", INSTALL)
    workspace = require("ppdet.core.workspace", INSTALL)
    require("ppdet.engine", INSTALL)
    from .mends import MENDS

    applied = apply_mends(MENDS)
    workspace.register(InLineBackbone)
    return applied


@functools.cache
def _untouched() -> dict[str, Any]:
    """The toolkit's registry as it is before any settings."""
    return {key: _copied(value) for key, value in _registry().items()}


def _registry() -> Any:
    return ppdet("core.workspace").global_config


def _copied(value: Any) -> Any:
    if not hasattr(value, "schema"):
        return copy.deepcopy(value)
    new = value.copy()
    for key, each in value.items():
        dict.__setitem__(new, key, copy.deepcopy(each))
    return new


def fresh_registry() -> Any:
    """Return the toolkit's registry without the settings of an earlier call, which it keeps for the whole process."""
    register()
    before, registry = _untouched(), _registry()
    registry.clear()
    registry.update({key: _copied(value) for key, value in before.items()})
    return registry
