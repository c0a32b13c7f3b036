"""What the models of all families share: features of a width, and a head that makes logits of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..layers.basic import Identity, Module, linear_like
from .spec import check_spec


class Classifier(Module):
    """The base of every family.

    Attributes:
        spec: the row of sizes that it was built by; head: Linear from features to logits, or Identity;
        num_features: width of what the head takes.
    """

    spec: Any

    @property
    def num_classes(self) -> int:
        """The outputs; 0: there is no head."""
        return self.spec.num_classes

    def add_head(self, num_features: int, num_classes: int) -> None:
        """Add the head behind features of this width; no classes: none, the model then returns its features."""
        self.num_features = num_features
        like = next(iter(self.parameters()), None)
        self.head = linear_like(like, num_features, num_classes) if num_classes else Identity()

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh head of `num_classes` outputs in the place of the model's own, as timm's models do.

        Everything else stays: weights, precision, mode. Names of classes that came with the weights are
        dropped with the head that they were of. An optimizer that was made before does not know the new head.

        Args:
            num_classes: outputs; 0: no head, the model then returns its features [B, num_features].

        Raises:
            UserError: it is no int of at least 0.
        """
        spec = dataclasses.replace(self.spec, num_classes=num_classes)
        check_spec(spec)
        self.spec = spec
        self.add_head(self.num_features, num_classes)
        self.head.training = self.training
        known = getattr(self, "description", None)
        if known:
            kept = {key: value for key, value in known.items() if key != "classes"}
            self.description = {
                **kept,
                "overrides": {**kept.get("overrides", {}), "num_classes": num_classes},
            }
