"""Trains, evaluates or times a model.

    python train_paddle.py --cfg configs/quickstart.yaml
    python -m paddle.distributed.launch train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET
    python train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET --pretrained W --eval

Everything a run makes goes to OUTPUT/MODEL/TAG: checkpoints/, best_model.pdparams, train.log,
metrics.jsonl, visualdl/, curves.png, predictions.png, config.yaml.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from paddle_inline.runtime import import_paddle, tune_cpu

TUNED = tune_cpu(workers=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))  # before Paddle is imported
paddle = import_paddle()

import numpy as np  # noqa: E402

from paddle_inline import config as settings  # noqa: E402
from paddle_inline import create_model, load_weights  # noqa: E402
from paddle_inline.adapt import load_adapted  # noqa: E402
from paddle_inline.data import sampler  # noqa: E402
from paddle_inline.data.loaders import BadImage, Loader, Samples  # noqa: E402
from paddle_inline.data.mixup import Mixup  # noqa: E402
from paddle_inline.data.sources import open_source  # noqa: E402
from paddle_inline.data.transforms import eval_transform, train_transform  # noqa: E402
from paddle_inline.engine import checkpoint, distributed, failure, plots  # noqa: E402
from paddle_inline.engine.diagnose import NotFinite  # noqa: E402
from paddle_inline.engine.ema import Ema, total_decay  # noqa: E402
from paddle_inline.engine.evaluate import evaluate  # noqa: E402
from paddle_inline.engine.fit import Progress, fit  # noqa: E402
from paddle_inline.engine.log import RunLog, duration  # noqa: E402
from paddle_inline.engine.losses import make_loss  # noqa: E402
from paddle_inline.engine.optim import decay_groups, make_optimizer  # noqa: E402
from paddle_inline.engine.schedule import make_schedule, scaled  # noqa: E402
from paddle_inline.models.factory import model_spec  # noqa: E402

# Settings that may change between a run and its resumption: none of them changes the weights.
FREE = (
    *("output", "tag", "print_freq", "save_freq", "save_steps", "keep_last", "visualdl"),
    *("data.data_path", "data.num_workers", "data.zip_mode", "model.resume", "model.pretrained"),
    *("train.auto_resume", "train.use_checkpoint"),
)


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


def build_model(config, classes):
    """(model, the overrides that build it again) of the settings."""
    model = config.model
    name = settings.model_name(model.name)
    overrides = dict(model.overrides, num_classes=model.num_classes or classes)
    fields = {field.name for field in dataclasses.fields(model_spec(name))}
    optional = {
        "img_size": config.data.img_size,
        "drop_path_rate": model.drop_path_rate,
        "drop_rate": model.drop_rate,
        "recompute": config.train.use_checkpoint,
    }
    overrides.update({key: value for key, value in optional.items() if key in fields and value})
    if model.num_classes is not None and model.num_classes < classes:
        raise ValueError(f"model.num_classes is {model.num_classes}; the data set has {classes} classes")
    built = create_model(name, **overrides)
    built.name = name
    if config.train.sync_bn:
        built = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(built)
    return built, overrides


def build_eval(config, world, rank):
    """(source, loader) of this rank's share of the held-out images."""
    data = config.data
    source = open_source(data.dataset, data.data_path, train=False, zip_mode=data.zip_mode)
    transform = eval_transform(
        data.img_size,
        mean=data.mean,
        std=data.std,
        interpolation=data.interpolation,
        crop=config.test.crop,
    )
    samples = Samples(source, transform, on_bad_image=data.on_bad_image, replace=False)
    batches = sampler.eval_batches(len(source), data.batch_size, rank=rank, world=world)
    return source, Loader(samples, batches, num_workers=data.num_workers)


def build_train(config, world, rank):
    """(source, (epoch, batches to skip) -> loader) of this rank's share of the training images."""
    data, aug = config.data, config.aug
    source = open_source(data.dataset, data.data_path, train=True, zip_mode=data.zip_mode)
    transform = train_transform(
        data.img_size,
        mean=data.mean,
        std=data.std,
        interpolation=data.interpolation,
        scale=aug.scale,
        ratio=aug.ratio,
        hflip=aug.hflip,
        rotation=aug.rotation,
        color_jitter=aug.color_jitter,
        auto_augment=aug.auto_augment,
        reprob=aug.reprob,
        remode=aug.remode,
        recount=aug.recount,
    )
    samples = Samples(source, transform, seed=config.seed, on_bad_image=data.on_bad_image)

    def load(epoch, skip):
        batches = sampler.train_batches(
            len(source),
            data.batch_size,
            seed=config.seed,
            epoch=epoch,
            rank=rank,
            world=world,
            accumulation=config.train.accumulation_steps,
            skip=skip,
        )
        return Loader(samples, batches, num_workers=data.num_workers)

    return source, load


def build_mixup(config, classes):
    """The recipe's mixup, or None where the settings turn it off."""
    aug = config.aug
    if not (aug.mixup > 0 or aug.cutmix > 0 or aug.cutmix_minmax):
        return None
    if config.data.batch_size % 2:
        raise ValueError(
            f"data.batch_size is {config.data.batch_size}; mixup pairs images, so it must be even (or "
            "set aug.mixup=0 aug.cutmix=0)"
        )
    return Mixup(
        classes,
        mixup=aug.mixup,
        cutmix=aug.cutmix,
        cutmix_minmax=aug.cutmix_minmax,
        prob=aug.mixup_prob,
        switch_prob=aug.mixup_switch_prob,
        mode=aug.mixup_mode,
        smoothing=config.model.label_smoothing,
    )


def amp_arguments(config):
    """Arguments of `auto_cast`, or None in full precision, which is all that Paddle has on a CPU."""
    if config.amp.level == "O0" or paddle.device.get_device() == "cpu":
        return None
    return {"enable": True, "level": config.amp.level, "dtype": config.amp.dtype}


def place(config) -> Path:
    """OUTPUT/MODEL/TAG."""
    return Path(config.output) / settings.model_name(config.model.name) / config.tag


def run_folder(config) -> Path:
    """OUTPUT/MODEL/TAG, made here.

    Raises:
        OSError: if it cannot be written, with the way out.
    """
    folder = place(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"the output folder {folder} cannot be written ({error.strerror}); choose another with --output"
        ) from None
    return folder


class Stop:
    """Whether this process was asked to stop (SIGTERM, SIGINT once), or has done its share."""

    def __init__(self, progress, after):
        self.progress, self.after, self.asked = progress, after, False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number, frame):
        self.asked = True

    def __call__(self):
        return self.asked or (self.after is not None and self.progress.epoch >= self.after)


def find_resume(config, folder, log):
    """The checkpoint to go on from, or None; `auto` is this run's newest valid one, if there is any."""
    wanted = config.model.resume or ("auto" if config.train.auto_resume else "")
    if wanted != "auto":
        return checkpoint.find_checkpoint(wanted) if wanted else None
    found, skipped = checkpoint.newest_checkpoint(folder / "checkpoints")
    for message in skipped:
        log.say(f"skipped: {message}")
    if found is None:
        log.say(f"nothing to resume in {folder}: starting afresh")
    return found


def check_same_run(old, new, world, updates_per_epoch, force):
    """Refuses to go on from a checkpoint of other settings, unless forced."""
    if old["config"] is None:  # converted from PyTorch, which tells none: the epochs must be as long
        if old["update"] != old["progress"]["epoch"] * updates_per_epoch:
            raise checkpoint.CheckpointError(
                f"the checkpoint has done {old['update']} updates in {old['progress']['epoch']} epochs; with "
                f"this batch and data an epoch has {updates_per_epoch}. Choose data.batch_size and "
                "train.accumulation_steps as it was trained with"
            )
        return
    changed = [
        line
        for line in settings.differences(old["config"], settings.to_dict(new))
        if line.split(":")[0] not in FREE
    ]
    if old["world"] != world:
        here = f"ranks: {old['world']} -> {world}"
        images = old["world"] * old["config"]["data"]["batch_size"]
        same = images == world * new.data.batch_size and new.model.drop_path_rate == 0
        changed = [line for line in changed if not (same and line.startswith("data.batch_size"))]
        if not same:
            changed.append(f"{here} (the batch of all ranks, or their random draws, would change)")
    if changed and not force:
        raise checkpoint.CheckpointError(
            "the settings differ from those of the checkpoint:\n  "
            + "\n  ".join(changed)
            + "\n(--force goes on with the new ones)"
        )


def train(config, args) -> int:
    """A training run, from its beginning or a checkpoint to its end."""
    rank, world = distributed.start()
    with failure.reported(place(config), rank, world):
        return train_rank(config, args, rank, world)


def train_rank(config, args, rank, world) -> int:
    """One rank's part of `train`."""
    paddle.seed(config.seed)
    train_source, load = build_train(config, world, rank)
    eval_source, eval_loader = build_eval(config, world, rank)
    model, overrides = build_model(config, len(train_source.classes))
    classes = overrides["num_classes"]
    mixup = build_mixup(config, classes)
    opts = config.train
    batches = sampler.batches_per_epoch(
        len(train_source), config.data.batch_size, world, opts.accumulation_steps
    )
    updates_per_epoch = batches // opts.accumulation_steps
    images = config.data.batch_size * world * opts.accumulation_steps
    groups = decay_groups(model, opts.weight_decay)
    amp = amp_arguments(config)
    if amp and config.amp.level == "O2":
        model = paddle.amp.decorate(models=model, level="O2", dtype=config.amp.dtype)
    optimizer = make_optimizer(
        opts.optimizer.name,
        model,
        groups,
        betas=opts.optimizer.betas,
        eps=opts.optimizer.eps,
        momentum=opts.optimizer.momentum,
        multi_precision=bool(amp) and config.amp.level == "O2",
    )
    schedule = make_schedule(
        opts.lr_scheduler.name,
        base=scaled(opts.base_lr, images, opts.lr_batch),
        warmup=scaled(opts.warmup_lr, images, opts.lr_batch),
        floor=scaled(opts.min_lr, images, opts.lr_batch),
        epochs=opts.epochs,
        warmup_epochs=opts.warmup_epochs,
        updates_per_epoch=updates_per_epoch,
        decay_epochs=opts.lr_scheduler.decay_epochs,
        decay_rate=opts.lr_scheduler.decay_rate,
    )
    scaler = None
    if amp and config.amp.dtype == "float16":
        scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**16)
    notes = load_adapted(model, config.model.pretrained) if config.model.pretrained else []
    ema = None
    if config.ema.decay is not None:
        ema = Ema(model, total_decay(config.ema.decay, images, config.ema.lr_batch))

    folder = run_folder(config)
    log = RunLog(folder, rank=rank, visualdl=config.visualdl)
    progress = Progress()
    found = find_resume(config, folder, log)
    if found is not None:
        check_same_run(checkpoint.check_checkpoint(found), config, world, updates_per_epoch, args.force)
        state = checkpoint.load_checkpoint(found, model=model, optimizer=optimizer, ema=ema)
        progress = Progress(**state["progress"])
        if scaler is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        log.rewind(progress.update, progress.epoch)
        log.say(f"resumed from {found}: epoch {progress.epoch}, update {progress.update}")
    if rank == 0:
        (folder / "config.yaml").write_text(settings.to_yaml(config), encoding="utf-8")
    for note in notes:
        log.say(f"{config.model.pretrained}: {note}")
    describe(log, config, model, groups, train_source, eval_source, world, images)

    def save(progress):
        checkpoint.save_checkpoint(
            folder / "checkpoints",
            model=model,
            optimizer=optimizer,
            ema=ema,
            keep_last=config.keep_last,
            state={
                "model": model.name,
                "overrides": overrides,
                "update": progress.update,
                "progress": progress.as_dict(),
                "rate": schedule(progress.update),
                "updates_per_epoch": updates_per_epoch,
                "scaler": plain(scaler.state_dict()) if scaler is not None else None,
                "random": {"seed": config.seed, "update": progress.update},
                "world": world,
                "config": settings.to_dict(config),
                "classes": list(train_source.classes),
                "paddle": paddle.__version__,
            },
        )

    def save_best(which):
        weights = model.state_dict() if which == "model" else ema.average
        name = "best_model.pdparams" if which == "model" else "best_model_ema.pdparams"
        checkpoint.save_weights(folder / name, weights, {"model": model.name, "overrides": overrides})

    started = time.perf_counter()
    fit(
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
        save=save,
        save_best=save_best,
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
        max_bad_losses=opts.max_bad_losses,
        should_stop=Stop(progress, args.stop_after),
        run_folder=folder,
    )
    if rank == 0:
        finish(log, config, model, progress, eval_loader, eval_source, folder, started)
    log.close()
    return 0


def describe(log, config, model, groups, train_source, eval_source, world, images):
    """The first lines of a run: what is trained, on what, how."""
    count = sum(p.size for p in model.parameters())
    log.say(f"{model.name}: {count / 1e6:.3f} M parameters, {world} x {paddle.device.get_device()}")
    log.say(
        f"{config.data.dataset}: {len(train_source)} training and {len(eval_source)} held-out images, "
        f"{len(train_source.classes)} classes, {images} images an update"
    )
    for group in groups:
        log.say(f"weight decay {group.weight_decay:g}: {len(group.names)} tensors, {group.rule}")
    if config.amp.level != "O0" and amp_arguments(config) is None:
        log.say(f"amp.level {config.amp.level} has no effect on a CPU: training in full precision")
    if TUNED and paddle.device.get_device() == "cpu":
        log.say("set for this CPU: " + " ".join(f"{k}={v}" for k, v in TUNED.items()))


def finish(log, config, model, progress, loader, source, folder, started):
    """The pictures and last lines of a run."""
    try:
        plots.learning_curves(folder, folder / "curves.png")
        picture_predictions(model, loader, source, config, folder / "predictions.png")
    except ImportError as error:
        log.say(f"no pictures: {error}")
    best = f"best top-1 {progress.best_top1:.2f}% (epoch {progress.best_epoch})"
    if progress.best_ema_top1 >= 0:
        best += f", averaged {progress.best_ema_top1:.2f}% (epoch {progress.best_ema_epoch})"
    log.say(f"{best}; {duration(time.perf_counter() - started)}; everything is in {folder}")


@paddle.no_grad()
def picture_predictions(model, loader, source, config, path, count=32):
    """The first held-out images with the model's guesses, wrong ones in red."""
    images, labels = next(iter(loader))
    images, labels = images[:count], labels[:count].numpy()
    model.eval()
    logits = model(images.astype(model.parameters()[0].dtype)).astype("float32")
    guesses = paddle.nn.functional.softmax(logits, -1).numpy()
    best = guesses.argmax(1)
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (config.data.mean, config.data.std))
    titles = [
        f"{source.classes[b]} {100 * g[b]:.0f}%" + ("" if b == t else f" ({source.classes[t]})")
        for b, g, t in zip(best, guesses, labels)
    ]
    plots.image_grid(images.numpy() * std + mean, titles, path, correct=best == labels)


def only_evaluate(config) -> int:
    """Accuracy of given weights over the held-out images."""
    rank, world = distributed.start()
    source, loader = build_eval(config, world, rank)
    model, _ = build_model(config, len(source.classes))
    weights = config.model.pretrained or config.model.resume
    if not weights:
        raise ValueError("--eval needs weights: give --pretrained FILE, or --resume CHECKPOINT")
    if Path(weights).is_dir():
        weights = checkpoint.find_checkpoint(weights) / "model.pdparams"
    load_weights(model, weights)
    accuracy = evaluate(model, loader, world=world, amp=amp_arguments(config))
    if rank == 0:
        print(f"{model.name} with {weights}: {accuracy}")
    return 0


@paddle.no_grad()
def throughput(config) -> int:
    """Images per second of the forward pass, on random images."""
    model, _ = build_model(config, config.model.num_classes or 1000)
    model.eval()
    side, batch = config.data.img_size, config.data.batch_size
    images = paddle.randn([batch, config.model.in_chans, side, side])
    on_gpu = paddle.device.get_device() != "cpu"
    warm, timed = (50, 30) if on_gpu else (2, 5)
    with paddle.amp.auto_cast(**(amp_arguments(config) or {"enable": False})):
        for count in (warm, timed):
            started = time.perf_counter()
            for _ in range(count):
                model(images)
            if on_gpu:
                paddle.device.synchronize()
    speed = timed * batch / (time.perf_counter() - started)
    print(f"{model.name}: {speed:.1f} images/s, batch {batch} of {side} x {side}, forward")
    return 0


def plain(state):
    """Numbers of Paddle's and numpy's as Python's, for JSON."""
    return {k: v.item() if hasattr(v, "item") else v for k, v in state.items()}


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
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
