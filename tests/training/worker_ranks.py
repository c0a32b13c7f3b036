"""Run by test_ranks.py under the launcher: trains a small model and writes what became of it."""

import json
import os
import sys
from pathlib import Path

from paddle_inline.utils.environment import tune_cpu

tune_cpu(2)

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from paddle_inline import create_model  # noqa: E402
from paddle_inline.data import sampler  # noqa: E402
from paddle_inline.training import distributed  # noqa: E402
from paddle_inline.training.ema import Ema  # noqa: E402
from paddle_inline.training.evaluate import evaluate  # noqa: E402
from paddle_inline.training.loop import train_step  # noqa: E402
from paddle_inline.training.losses import make_loss  # noqa: E402
from paddle_inline.training.optim import decay_groups, make_optimizer  # noqa: E402
from paddle_inline.training.sync_bn import synchronise  # noqa: E402


def main(folder, per_rank, steps=10, length=37):
    rank, world = distributed.start()
    paddle.set_default_dtype("float64")
    paddle.seed(3)
    model = create_model("inline_deit_digits", img_size=8, depth=2, embed_dim=16, num_heads=2)
    net = distributed.parallel(model, world)
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    ema = Ema(model, 0.9)
    rng = np.random.RandomState(0)
    images, labels = rng.standard_normal((length, 3, 8, 8)), rng.randint(0, 10, length)

    def load(batch):
        index = [i for _, i in batch]
        return paddle.to_tensor(images[index]), paddle.to_tensor(labels[index])

    batches = []
    while len(batches) < steps:
        batches += sampler.train_batches(length, per_rank, seed=1, epoch=len(batches), rank=rank, world=world)
    for batch in batches[:steps]:
        train_step(net, optimizer, [load(batch)], make_loss(False, 0.1), 1e-2, clip=0.5)
        ema.update(model)
    mine = sampler.eval_batches(length, 4, rank=rank, world=world)
    accuracy = evaluate(model, [load(batch) for batch in mine], world=world)
    if rank == 0:
        np.savez(
            Path(folder) / f"{world}.npz",
            **{name: value.numpy() for name, value in model.state_dict().items()},
            **{f"ema/{name}": value.numpy() for name, value in ema.average.items()},
        )
        (Path(folder) / f"{world}.json").write_text(json.dumps(accuracy._asdict()))
    synchronised(folder, per_rank, rank, world)
    if world > 1:
        separate(folder, per_rank, rank)


def separate(folder, per_rank, rank):
    """Batch normalisation that is not synchronised: the ranks' statistics differ until they evaluate."""
    model = create_model("soft_digits", img_size=32)
    model.train()
    model(paddle.randn([per_rank, 3, 32, 32]) + rank)
    statistics = {name: v.clone() for name, v in model.state_dict().items() if name.endswith("._mean")}
    batch = (paddle.zeros([1, 3, 32, 32]), paddle.zeros([1], "int64"))
    evaluate(model, [batch], world=2)
    after = model.state_dict()
    np.savez(
        Path(folder) / f"separate_{rank}.npz",
        before=np.concatenate([value.numpy() for value in statistics.values()]),
        after=np.concatenate([after[name].numpy() for name in statistics]),
    )


def synchronised(folder, per_rank, rank, world):
    """A small SOFT model, in train mode, whose batch statistics are all ranks'."""
    paddle.seed(4)
    model = synchronise(create_model("soft_digits", img_size=32, drop_path_rate=0.0), world)
    net = distributed.parallel(model, world)
    net.train()
    rng = np.random.RandomState(1)
    loss_fn, outputs = make_loss(False, 0.1), []
    for _ in range(2):  # uneven means, so that each rank's own differ much
        images = rng.standard_normal((8, 3, 32, 32)) + np.arange(8).reshape(8, 1, 1, 1)
        mine = slice(rank * per_rank, (rank + 1) * per_rank)
        model.clear_gradients()
        logits = net(paddle.to_tensor(images[mine]))
        loss_fn(logits, paddle.to_tensor(np.arange(8)[mine])).backward()
        outputs.append(logits.numpy())
    np.save(Path(folder) / f"sync_{world}_{rank}.npy", np.stack(outputs))
    if rank == 0:
        np.savez(
            Path(folder) / f"sync_{world}.npz",
            **{f"grad/{name}": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None},
            **{f"state/{name}": value.numpy() for name, value in model.state_dict().items()},
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may outlive the interpreter
