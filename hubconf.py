"""The entry points of `paddle.hub`: every model of `paddle_inline.list_models()`, from a clone of this repository.

paddle.hub.list(FOLDER, source="local")
paddle.hub.help(FOLDER, "inline_deit_tiny", source="local")
paddle.hub.load(FOLDER, "inline_deit_tiny", source="local", weights="w.pdparams", num_classes=3)
"""

from paddle_inline import models as _models

dependencies = ["numpy", "omegaconf", "paddle", "PIL", "safetensors"]

# (whatever is callable and has no underscore before its name is an entry point)
globals().update({_name: getattr(_models, _name) for _name in _models.list_models()})
