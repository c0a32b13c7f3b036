"""Which names are those of what training keeps beside a network, and which those of a network's parts."""

from __future__ import annotations

import re

# Names of a network's parts: what is called so belongs to its function, and a model without it is another.
_PART = re.compile(
    r"token|embed|pos(?![a-z])|norm|stem|patch|layer|block|stage|attn|gamma|regist|sample|merge|neck|scale",
    re.IGNORECASE,
)
# Names of what training keeps beside a network, even where they hold one of the words above.
_BESIDE = re.compile(
    r"loss|criteri|metric|acc(?![a-z])|accura|head|classif|optim|(^|_)ema|queue|center|count|step|epoch|proj|predict|"
    r"mask_token|decod|teacher|student|momentum|aux|logit|memory|proto|normaliz|pixel|average|scaler",
    re.IGNORECASE,
)


def is_company(module: str) -> bool:
    """Return whether a module of this name, which is none of a model's own, can be left out without changing it."""
    return bool(_BESIDE.search(module)) or not _PART.search(module)
