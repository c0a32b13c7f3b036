"""The recorded numbers of attention layers, and layers of either package with the weights that they were recorded of.

tests/golden/README.md says how weights and inputs are drawn and what is kept of a tensor.
"""

import json
from pathlib import Path
from zlib import crc32

import numpy as np

FOLDER = Path(__file__).parents[1] / "golden" / "attention"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
NUMBERS = dict(np.load(FOLDER / "numbers.npz"))
BATCH, HEADS, HEAD_DIM = 2, 3, 16
# a golden's form -> the option that its size is given by, and where the manifest has it
SIZES = {
    "nystrom": lambda entry: {"num_landmarks": entry["landmarks"]},
    "performer": lambda entry: {"num_features": entry["params"]["projection"][0]},
    "linformer": lambda entry: {"num_projected": entry["params"]["proj_k.weight"][1]},
    "agent": lambda entry: {"num_agents": entry["params"]["an_bias"][1]},
}


def draw(name, shape, seed):
    """A parameter's values, of its PyTorch shape."""
    z = np.random.RandomState((crc32(name.encode()) + seed) % 2**32).standard_normal(
        int(np.prod(shape, dtype=int))
    )
    z = z.reshape(shape)
    is_weight = name.rpartition(".")[2] == "weight"
    if z.ndim <= 1:
        return 1 + 0.1 * z if name.endswith("weight") else 0.1 * z
    return z / np.sqrt(np.prod(shape[1:])) if is_weight else 0.1 * z


def weights_of(entry):
    """{name: values} of a golden's layer, buffers too, in PyTorch's layout."""
    values = {name: draw(name, shape, entry["seed"]) for name, shape in entry["params"].items()}
    for name in values:
        shift, scale = entry.get("shift", {}).get(name, 0), entry.get("scale", {}).get(name, 1)
        values[name] = shift + scale * values[name]
    return values


def tokens_of(entry):
    """The input x and the factor g of the loss sum(out * g)."""
    shape = (BATCH, entry["prefix"] + entry["grid"][0] * entry["grid"][1], HEADS * HEAD_DIM)
    return tuple(
        np.random.RandomState(start + entry["seed"]).standard_normal(shape) for start in (1000, 2000)
    )


def summary(key, array):
    """What a golden keeps of a tensor: norm, sum, largest absolute value, a random product, eight elements."""
    flat = np.asarray(array, dtype=np.float64).ravel()
    probe = np.random.RandomState(crc32(f"probe:{key}".encode()) % 2**32).standard_normal(flat.size)
    digest = [np.linalg.norm(flat), flat.sum(), np.abs(flat).max(), flat @ probe, *flat[:8]]
    return np.array(digest + [np.nan] * (12 - len(digest)))


def errors(found, name):
    """{key: relative error} of summaries {key: array of 12} against a golden's."""
    entry, table = MANIFEST[name], NUMBERS[name]
    expected = dict(zip(entry["keys"], table))
    assert set(found) == set(expected) - {"loss"}
    floor = 1e-6 * max(row[0] for key, row in expected.items() if key.startswith("grad/"))
    sizes = {key: int(np.prod(shape)) for key, shape in entry["params"].items()}
    result = {}
    for key, digest in found.items():
        row, part = expected[key], key.partition("/")[2]
        norm = max(row[0], floor) if key.startswith("grad/") else row[0]
        n = sizes.get(part, tokens_of(entry)[0].size)
        scale = np.array(
            [norm, norm * np.sqrt(n), norm, norm, *np.maximum(np.abs(row[4:]), norm / np.sqrt(n))]
        )
        assert (np.isnan(row) == np.isnan(digest)).all(), key
        result[key] = np.nanmax(np.abs(digest - row) / scale)
    return result


def build(package, name):
    """The layer of a golden in float64: `package` is paddle_inline or torch_ref, imported."""
    entry = MANIFEST[name]
    options = SIZES.get(entry["form"], lambda entry: {})(entry)
    layer = package.create_attention(
        entry["form"],
        HEADS * HEAD_DIM,
        HEADS,
        grid=tuple(entry["grid"]),
        prefix_tokens=entry["prefix"],
        **options,
    )
    return layer, entry


def run_torch(name):
    """Summaries of torch_ref's layer."""
    import torch

    import torch_ref

    layer, entry = build(torch_ref, name)
    layer = layer.double()
    layer.load_state_dict({key: torch.tensor(value) for key, value in weights_of(entry).items()})
    x, g = (torch.tensor(array) for array in tokens_of(entry))
    seen = []
    layer.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x.requires_grad_(True)
    out = layer(x, tuple(entry["grid"]))
    (out * g).sum().backward()
    arrays = {"sum/out": out, "sum/pre": seen[0], "grad/x": x.grad}
    arrays.update({f"grad/{key}": parameter.grad for key, parameter in layer.named_parameters()})
    return {key: summary(key.removeprefix("sum/"), tensor.detach().numpy()) for key, tensor in arrays.items()}


def run_paddle(name):
    """Summaries of paddle_inline's layer, in PyTorch's layout."""
    import paddle

    import paddle_inline

    layer, entry = build(paddle_inline, name)
    layer.to(dtype="float64")
    turned = {
        f"{key}.weight" if key else "weight"
        for key, part in layer.named_sublayers()
        if isinstance(part, paddle.nn.Linear)
    }
    values = {key: value.T if key in turned else value for key, value in weights_of(entry).items()}
    state = layer.state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        key: value.shape for key, value in values.items()
    }
    for key, tensor in state.items():
        tensor.set_value(values[key])
    x, g = (paddle.to_tensor(array) for array in tokens_of(entry))
    seen = []
    layer.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x.stop_gradient = False
    out = layer(x, tuple(entry["grid"]))
    (out * g).sum().backward()
    arrays = {"sum/out": out.numpy(), "sum/pre": seen[0].numpy(), "grad/x": x.grad.numpy()}
    for key, parameter in layer.named_parameters():
        grad = parameter.grad.numpy()
        arrays[f"grad/{key}"] = grad.T if key in turned else grad
    return {key: summary(key.removeprefix("sum/"), array) for key, array in arrays.items()}


def tensor(package, array):
    """An array as a tensor of a package."""
    if package.__name__ == "paddle_inline":
        import paddle

        return paddle.to_tensor(array)
    import torch

    return torch.tensor(array)


def in_float64(layer):
    """A layer of either package in float64."""
    if hasattr(layer, "sublayers"):
        layer.to(dtype="float64")
        return layer
    return layer.double()


def numpy_of(tensor):
    """The numbers of a tensor of either package."""
    return tensor.detach().numpy()
