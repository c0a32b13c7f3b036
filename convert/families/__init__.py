"""Every family's adapter, by the name of its model class, which is the same in both packages."""

from __future__ import annotations

from collections.abc import Mapping

from . import cswin, deit, pvt, soft, swin
from .adapter import Family, SmallModel

FAMILIES = {
    "InLineDeiT": deit.FAMILY,
    "InLinePVT": pvt.FAMILY,
    "InLineSwin": swin.FAMILY,
    "InLineCSwin": cswin.FAMILY,
    "Soft": soft.FAMILY,
}


def family_of(model: object) -> Family:
    """Return the adapter of a model of either package."""
    return FAMILIES[type(model).__name__]


def small_models() -> Mapping[str, SmallModel]:
    """Return {label: SmallModel} of all families."""
    return {label: model for family in FAMILIES.values() for label, model in family.small.items()}
