"""A model as plain data, for pickles: Paddle's layers hold what cannot cross to another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import paddle


@dataclass(frozen=True)
class PickledModel:
    """What builds a model of `create_model` again, with its weights, on the CPU or the device in use."""

    name: str
    overrides: dict[str, Any]
    description: dict[str, Any] | None
    dtypes: dict[str, str]
    weights: dict[str, np.ndarray]  # bfloat16 as float32

    @classmethod
    def of(cls, model: paddle.nn.Layer) -> PickledModel:
        """Take a model's name, overrides, description and weights."""
        from ..models.factory import overrides_of

        state = model.state_dict()
        dtypes = {name: str(tensor.dtype).rsplit(".", 1)[-1] for name, tensor in state.items()}
        weights = {
            name: (tensor.astype("float32") if dtypes[name] == "bfloat16" else tensor).numpy()
            for name, tensor in state.items()
        }
        description = getattr(model, "description", None)
        return cls(model.name, overrides_of(model), description, dtypes, weights)

    def build(self) -> paddle.nn.Layer:
        """Build the model, in eval mode."""
        from ..models.factory import create_model

        model = create_model(self.name, **self.overrides)
        floats = {dtype for dtype in self.dtypes.values() if "float" in dtype}
        if floats != {"float32"} and len(floats) == 1:
            model.to(dtype=floats.pop())
        own = model.state_dict()
        for name, value in self.weights.items():
            own[name].set_value(_tensor(value, self.dtypes[name]))
        if self.description is not None:
            model.description = self.description
        model.eval()
        return model


def _tensor(value: np.ndarray, dtype: str) -> paddle.Tensor:
    import paddle

    return paddle.to_tensor(value).astype(dtype)
