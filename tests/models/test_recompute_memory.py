"""Gradient checkpointing lowers the peak of memory: one training step in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = """
import {framework} as framework
import {package} as package
from paddle_inline.utils.timing import peak_memory

model = package.create_model("inline_deit_digits", depth=24, recompute={recompute})
model.train()
images = framework.ones([{images}, 3, 32, 32])
before = peak_memory()
model(images).sum().backward()
print("MiB", peak_memory() - before)
"""


def growth(framework, package, images, recompute):
    """MiB that a step's peak stands above what the process held before it."""
    code = STEP.format(framework=framework, package=package, images=images, recompute=recompute)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split("MiB")[1])


@pytest.mark.parametrize(
    ("framework", "package", "images"), [("paddle", "paddle_inline", 64), ("torch", "torch_ref", 128)]
)
def test_peak_is_lower_by_a_fifth_of_a_gib(framework, package, images):
    pytest.importorskip(framework)
    kept, recomputed = (growth(framework, package, images, recompute) for recompute in (False, True))
    assert recomputed < kept - 200, (kept, recomputed)
