"""Which operators each family uses, and which of them have GPU kernels: evidence without a GPU.

    pip install paddlepaddle-gpu==2.6.2 'numpy<2'        # in an environment of its own; imports on a CPU
    python benchmarks/gpu_kernels.py

A training step (forward, backward, AdamW with clipping) and the same under bfloat16 casts run here on the
CPU; the operators that they call, and the gradients of these, are looked up in the wheel's own kernel
registry, for the GPU in float32, float16 and bfloat16. A kernel that is there has not thereby been run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("FLAGS_call_stack_level", "0")

from common import RESULTS, print_table  # noqa: E402

FAMILIES = {
    "inline_deit_digits": {},
    "inline_pvt_tiny": {"img_size": 64},
    "inline_swin_tiny": {"img_size": 64},
    "inline_cswin_tiny": {"img_size": 64},
    "soft_tiny": {"img_size": 64},
    "soft_norm_tiny": {"img_size": 64},
}
TYPES = ("float32", "float16", "bfloat16")
RENAMED = {"full_": "fill_constant"}
IN_FLOAT32 = {"reduce_amax", "reduce_amax_grad"}  # SOFT's inverses, which no autocasting makes any smaller
AMP = ("cast", "check_finite_and_unscale", "update_loss_scaling")  # what AMP adds, which the list leaves out


def registry() -> dict[str, set[str]]:
    """Return {operator: {types of its GPU kernels}} of the installed wheel."""
    from paddle.base import core

    spelled = {"float32": "data_type[float]", "float16": "::float16]", "bfloat16": "::bfloat16]"}
    kernels = {
        name: {kind for kind, text in spelled.items() for key in keys if text in key and "Place(gpu" in key}
        for name, keys in core._get_all_register_op_kernels("all").items()
    }
    for name, keys in core._get_registered_phi_kernels(
        "function"
    ).items():  # the newer half, by its own names
        there = {
            kind for kind in TYPES for key in keys if key.startswith("(GPU") and key.endswith(f" {kind})")
        }
        kernels[name] = kernels.get(name, set()) | there
    return kernels


def traced_operators(name: str, overrides: dict[str, Any], half: bool) -> set[str]:
    """Return the operators that one training step calls: forward, loss, clipping and optimizer."""
    import paddle
    from paddle.base import core

    import paddle_inline

    paddle.seed(0)
    model = paddle_inline.create_model(name, **overrides)
    clip = paddle.nn.ClipGradByGlobalNorm(5.0)
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters(), grad_clip=clip)
    images = paddle.randn([2, 3, *model.img_size])
    labels = paddle.nn.functional.one_hot(paddle.to_tensor([0, 1]), model.spec.num_classes)
    paddle.set_flags({"FLAGS_low_precision_op_list": 1})  # which lists every operator, whatever its type
    core.clear_low_precision_op_list()
    with paddle.amp.auto_cast(enable=half, dtype="bfloat16", level="O1"):
        loss = -(labels * paddle.nn.functional.log_softmax(model(images))).sum(axis=-1).mean()
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    return set(core.get_low_precision_op_list())


def with_gradient(operator: str, kernels: dict[str, set[str]]) -> list[str]:
    """Return the operator as the registry spells it, and its gradient where that has kernels of its own."""
    operator = RENAMED.get(operator, operator).rstrip("_")
    return [name for name in (operator, f"{operator}_grad") if name == operator or name in kernels]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    arguments = parser.parse_args(argv)
    import paddle

    if not paddle.is_compiled_with_cuda():
        print(
            "COULD NOT RUN: this Paddle has no GPU kernels; install paddlepaddle-gpu==2.6.2", file=sys.stderr
        )
        return 1
    kernels = registry()
    found = {}
    for name in arguments.families:
        for half in (False, True):
            for operator in traced_operators(name, FAMILIES.get(name, {}), half):
                for one in with_gradient(operator, kernels):
                    found.setdefault(one, set()).add(name)
    for operator in AMP:
        found.setdefault(operator, set()).update(arguments.families)
    rows = [
        [name, *("yes" if t in kernels.get(name, ()) else "-" for t in TYPES), len(found[name])]
        for name in sorted(found)
    ]
    print_table(["operator", *TYPES, "families"], rows)
    lacking = [row for row in rows if row[1] == "-"]
    print(f"\npaddlepaddle-gpu {paddle.__version__}: {len(kernels)} operators in the registry")
    for i, kind in enumerate(TYPES, 1):
        needed = [row for row in rows if kind == "float32" or row[0] not in IN_FLOAT32]
        without = [row[0] for row in needed if row[i] == "-"]
        print(
            f"{kind}: {len(needed) - len(without)} of {len(needed)} have a GPU kernel; "
            f"without: {', '.join(without) or 'none'}"
        )
    print(f"(in float32 whatever the autocasting: {', '.join(sorted(IN_FLOAT32))})")
    RESULTS.mkdir(exist_ok=True)
    text = {
        name: {"types": sorted(kernels.get(name, ())), "families": sorted(found[name])}
        for name in sorted(found)
    }
    facts = {"paddle": paddle.__version__, "operators": text}
    (RESULTS / "gpu_kernels.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
