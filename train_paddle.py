"""Trains, evaluates or times a model.

    python train_paddle.py --cfg configs/quickstart.yaml
    python -m paddle.distributed.launch train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET
    python train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET --pretrained W --eval

Everything a run makes goes to OUTPUT/MODEL/TAG: checkpoints/, best_model.pdparams, train.log,
metrics.jsonl, visualdl/, samples.png, curves.png, predictions.png, config.yaml.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from paddle_inline.utils.environment import import_paddle, tune_cpu

TUNED = tune_cpu(workers=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))  # before Paddle is imported
paddle = import_paddle()

from paddle_inline import load_weights  # noqa: E402
from paddle_inline.config import load as settings  # noqa: E402
from paddle_inline.data.loaders import BadImage  # noqa: E402
from paddle_inline.data.sampler import batches_per_epoch  # noqa: E402
from paddle_inline.training import build, checkpoint, distributed, failure, report  # noqa: E402
from paddle_inline.training.diagnose import NotFinite  # noqa: E402
from paddle_inline.training.evaluate import evaluate, forward_speed  # noqa: E402
from paddle_inline.training.log import RunLog, make_folder  # noqa: E402
from paddle_inline.training.loop import fit  # noqa: E402
from paddle_inline.training.losses import make_loss  # noqa: E402
from paddle_inline.training.optim import decay_groups  # noqa: E402
from paddle_inline.training.resume import CheckpointManager, archive_previous_run  # noqa: E402
from paddle_inline.training.stop import Stop  # noqa: E402
from paddle_inline.training.sync_bn import synchronise  # noqa: E402
from paddle_inline.utils.errors import UserError  # noqa: E402
from paddle_inline.weights.resize import load_adapted  # noqa: E402


def parse(argv=None):
    """The command line: the flags that users of the authors' code know, and Paddle's spellings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-c", "--cfg", metavar="FILE", default="", help="a YAML file of settings")
    add("--data-path", metavar="PATH", help="the data set's folder or archive")
    add("--batch-size", metavar="N", help="images per device")
    add("--output", metavar="DIR", help="where runs go (default: output)")
    add("--tag", metavar="NAME", help="names this run's folder (default: default)")
    add("--resume", metavar="WHAT", help="a checkpoint, a run's folder, or auto: this run's newest")
    add("--force", action="store_true", help="resume although settings have changed")
    add("--pretrained", metavar="FILE", help="weights to start from, or to evaluate")
    add("--eval", action="store_true", help="only evaluate")
    add("--throughput", action="store_true", help="only measure images/s, forward")
    add("--amp", action="store_true", help="mixed precision (amp.level=O1)")
    add("--accumulation-steps", metavar="N", help="batches per update")
    add("--use-checkpoint", action="store_true", help="save memory by recomputing activations")
    add("--model-ema-decay", metavar="D", help="keep an average of the weights")
    add("--save-steps", metavar="N", help="updates between checkpoints within an epoch")
    add("--stop-after", type=int, metavar="N", help="end after N epochs, to be resumed later")
    add("--on-bad-image", choices=("skip", "fail"), help="what a broken image file does")
    add("--zip", action="store_true", help="the data set is in zip files")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="any settings")
    add("-o", action="append", default=[], metavar="KEY=VALUE", help="any setting")
    add("--local_rank", help=argparse.SUPPRESS)  # older launchers pass it
    return parser.parse_args(argv)


def configure(args):
    """The settings of the file, the options and the flags, the flags last."""
    flags = {
        "data.data_path": args.data_path,
        "data.batch_size": args.batch_size,
        "data.on_bad_image": args.on_bad_image,
        "data.zip_mode": "true" if args.zip else None,
        "output": args.output,
        "tag": args.tag,
        "model.resume": args.resume,
        "model.pretrained": args.pretrained,
        "amp.level": "O1" if args.amp else None,
        "train.accumulation_steps": args.accumulation_steps,
        "train.use_checkpoint": "true" if args.use_checkpoint else None,
        "ema.decay": args.model_ema_decay,
        "save_steps": args.save_steps,
    }
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return settings.load_config(args.cfg, args.opts, [*args.o, *given])


def train(config, args) -> int:
    """A training run, from its beginning or a checkpoint to its end."""
    rank, world = distributed.start()
    with failure.reported(build.run_folder(config), rank, world):
        return train_rank(config, args, rank, world)


def train_rank(config, args, rank, world) -> int:
    """One rank's part of `train`."""
    paddle.seed(config.seed)
    source, load = build.build_train(config, rank, world)
    held_out, eval_loader = build.build_eval(config, rank, world)
    model = build.build_model(config, len(source.classes))
    mixup = build.build_mixup(config, model.overrides["num_classes"])
    opts, data = config.train, config.data
    batches = batches_per_epoch(len(source), data.batch_size, world, opts.accumulation_steps)
    updates_per_epoch = batches // opts.accumulation_steps
    images = data.batch_size * world * opts.accumulation_steps
    groups = decay_groups(model, opts.weight_decay)
    amp = build.amp_arguments(config)
    model, optimizer, scaler = build.build_optimizer(config, model, groups, amp)
    schedule = build.build_schedule(config, images, updates_per_epoch)
    notes = load_adapted(model, config.model.pretrained) if config.model.pretrained else []
    ema = build.build_ema(config, model, images)
    if opts.sync_bn:
        synchronise(model, world)

    folder = build.run_folder(config)
    wanted = config.model.resume or ("auto" if opts.auto_resume else "")
    if wanted not in ("", "auto"):
        wanted = str(checkpoint.find_checkpoint(wanted))  # refused before anything is written
    earlier = archive_previous_run(folder) if rank == 0 and not wanted else None
    if rank == 0:
        make_folder(folder)
    log = RunLog(folder, rank=rank, visualdl=config.visualdl)
    if earlier:
        log.say(f"an earlier run was here: it is in {earlier} now (--resume auto would have gone on with it)")
    facts = {
        "config": settings.to_dict(config),
        "world": world,
        "updates_per_epoch": updates_per_epoch,
        "classes": list(source.classes),
    }
    keeper = CheckpointManager(
        *(folder, model, optimizer),
        ema=ema,
        scaler=scaler,
        schedule=schedule,
        facts=facts,
        keep_last=config.keep_last,
        with_optimizer=config.save_optimizer,
    )
    own = build.rank_dependent_features(config, model)
    progress = keeper.resume(wanted, log, by_rank=own, force=args.force)
    if rank == 0:
        (folder / "config.yaml").write_text(settings.to_yaml(config), encoding="utf-8")
    for note in notes:
        log.say(f"{config.model.pretrained}: {note}")
    report.describe(
        *(log, model, groups),
        dataset=data.dataset,
        source=source,
        held_out=held_out,
        world=world,
        images=images,
        amp_level=config.amp.level,
        tuned=TUNED,
    )

    shown = {"mean": data.mean, "std": data.std}
    if rank == 0 and progress.update == 0:
        report.show_samples(log, load(0, 0), source.classes, **shown)
    started = time.perf_counter()
    done = fit(
        model,
        distributed.parallel(model, world),
        optimizer,
        progress=progress,
        epochs=opts.epochs + opts.cooldown_epochs,
        updates_per_epoch=updates_per_epoch,
        load=load,
        loss_fn=make_loss(mixup is not None, config.model.label_smoothing),
        schedule=schedule,
        validate=lambda: evaluate(model, eval_loader, world=world),
        save=keeper.save,
        save_best=keeper.save_best,
        log=log,
        mixup=mixup,
        ema=ema,
        scaler=scaler,
        amp=amp,
        clip=opts.clip_grad,
        accumulation=opts.accumulation_steps,
        seed=config.seed,
        rank=rank,
        world=world,
        print_freq=config.print_freq,
        save_freq=config.save_freq,
        save_steps=config.save_steps,
        histogram_freq=config.histogram_freq,
        max_bad_losses=opts.max_bad_losses,
        should_stop=Stop(progress, args.stop_after),
        run_folder=folder,
    )
    if rank == 0:
        if done:
            keeper.save_final()
        seconds = time.perf_counter() - started
        report.finish(log, model, progress, eval_loader, held_out.classes, seconds=seconds, **shown)
    log.close()
    return 0


def only_evaluate(config) -> int:
    """Accuracy of given weights over the held-out images."""
    rank, world = distributed.start()
    source, loader = build.build_eval(config, rank, world)
    model = build.build_model(config, len(source.classes))
    weights = config.model.pretrained or config.model.resume
    if not weights:
        raise UserError("--eval needs weights: give --pretrained FILE, or --resume CHECKPOINT")
    if Path(weights).is_dir():
        weights = checkpoint.find_checkpoint(weights) / "model.pdparams"
    load_weights(model, weights)
    accuracy = evaluate(model, loader, world=world, amp=build.amp_arguments(config))
    if rank == 0:
        print(f"{model.name} with {weights}: {accuracy}")
    return 0


def throughput(config) -> int:
    """Images per second of the forward pass, on random images."""
    model = build.build_model(config, config.model.num_classes or 1000)
    side, batch = config.data.img_size, config.data.batch_size
    images = paddle.randn([batch, config.model.in_chans, side, side])
    speed = forward_speed(model, images, build.amp_arguments(config))
    print(f"{model.name}: {speed:.1f} images/s, batch {batch} of {side} x {side}, forward")
    return 0


def main(argv=None) -> int:
    """Runs the program. Returns the exit code: 0 done, 1 failed, 2 not understood."""
    args = parse(argv)
    try:
        config = configure(args)
        if args.throughput:
            return throughput(config)
        if args.eval:
            return only_evaluate(config)
        return train(config, args)
    except (BadImage, NotFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
