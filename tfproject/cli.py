"""The `tfproject` command: arguments in, one call, what came out on the screen.

Nothing heavy is imported before the arguments are understood: `--help` answers at once.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import sys
import threading
import time
import warnings

from tfproject.errors import UserError
from tfproject.native_log import error_stream, native_log_silenced


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _where_options(group):
    group.add_argument(
        "--data-dir", type=pathlib.Path, metavar="DIR", help="folder, zip or TFDS folder that holds the set"
    )
    group.add_argument(
        "--on-bad-image",
        choices=("list", "fail"),
        default="list",
        help="leave out unreadable files and list them, or stop",
    )


def _data_options(parser):
    group = parser.add_argument_group("data")
    _where_options(group)
    group.add_argument(
        "--split-files",
        type=pathlib.Path,
        metavar="DIR",
        help="eurosat-random, eurosat-spatial, or a folder with *-train.txt, *-val.txt, *-test.txt: file names",
    )
    group.add_argument(
        "--split-method",
        choices=("own", "holdout", "files"),
        help="the set's own split, a stratified 70/15/15, or lists",
    )
    group.add_argument("--seed", type=int, default=0, help="of the split and of training (default 0)")
    group.add_argument(
        "--on-overlap", choices=("warn", "drop", "fail"), default="warn",
        help="of images that two splits hold: say so, leave them out of the later one, or stop (default warn)",
    )  # fmt: skip


def _image_size_option(parser):
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
        help="bring all images to this size, in pixels (default: their own, if they have one)",
    )  # fmt: skip


def _task_options(parser, profiles, reuse=True):
    """What the tasks have in common that are made of several runs."""
    parser.add_argument(
        "--data", default="synthetic", help="real, synthetic, or a set's name or folder (default synthetic)"
    )
    parser.add_argument("--profile", choices=tuple(profiles), help="default: quick for synthetic data, else cpu")
    parser.add_argument("--run-dir", type=pathlib.Path, metavar="DIR", help="where to write (default runs/…); goes on")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder, zip or TFDS folder of the set")
    if reuse:
        parser.add_argument(
            "--reuse", action="store_true", help="do not run again what is finished in this repository's results"
        )
    parser.add_argument("--publish", action="store_true", help="copy models and results into this repository")


def _abstain_option(parser):
    parser.add_argument(
        "--abstain-below", type=float, metavar="P",
        help="abstain where the probability is lower (default: as the model's card says, or never)",
    )  # fmt: skip


def _precision_option(parser, what, default):
    from tfproject.training.recipe import PRECISIONS

    parser.add_argument(
        "--precision", choices=[name for name in PRECISIONS if name != "auto"],
        help=f"of {what}; mixed_bfloat16 is faster where the processor has it (default: {default})",
    )  # fmt: skip


def _training_options(parser):
    from tfproject.training.recipe import Recipe

    parser.add_argument(
        "--data", default="synthetic", help="real, synthetic, or a set's name or folder (default synthetic)"
    )
    parser.add_argument("--profile", choices=("quick", "cpu"), help="default: quick for synthetic data, else cpu")
    parser.add_argument("--run-dir", type=pathlib.Path, metavar="DIR", help="where to write (default runs/…)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that the directory holds")
    parser.add_argument("--strategy", choices=("single", "mirrored"), default="single", help="one device, or all")
    parser.add_argument("--trace", action="store_true", help="record a TensorBoard profile of ten steps")
    _data_options(parser)
    _image_size_option(parser)
    group = parser.add_argument_group("recipe", "what to change in the profile's recipe")
    for field in dataclasses.fields(Recipe):
        if field.name in ("seed", "layer_rates"):
            continue
        flag = "--" + field.name.replace("_", "-")
        if field.name == "augment":
            group.add_argument(
                flag, nargs="*", metavar="NAME", help="in order; none to train on the images as they are"
            )
        elif field.name == "jit_compile":
            group.add_argument(flag, choices=("true", "false", "auto"))
        else:
            group.add_argument(flag, type=field.type, metavar=field.type.__name__.upper())


def _overrides(arguments):
    from tfproject.training.recipe import Recipe

    given = {f.name: getattr(arguments, f.name, None) for f in dataclasses.fields(Recipe) if f.name != "seed"}
    given = {name: value for name, value in given.items() if value is not None}
    if "jit_compile" in given:
        given["jit_compile"] = {"true": True, "false": False, "auto": "auto"}[given["jit_compile"]]
    return given


def build_parser():
    """The command line, as an argparse parser; `run` in the result is the function to call with it."""
    from tfproject import __version__, models
    from tfproject.tasks import (
        interpretation,
        study,
        task1_custom_cnn,
        task2_experiments,
        task3_visualizations,
        task4_transfer,
        task5_eurosat,
    )  # fmt: skip

    parser = _Parser(
        prog="tfproject", description="A study of convolutional networks, and a tool for land-cover tiles."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(needs_tensorflow=True)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    command = commands.add_parser("study", help="run all tasks, what is missing of them")
    command.add_argument("--data", choices=("real", "synthetic"), default="synthetic")
    command.add_argument("--profile", choices=("quick", "cpu"), help="default: quick for synthetic data, else cpu")
    command.add_argument("--run-dir", type=pathlib.Path, metavar="DIR", help="where to write (default runs/study-…)")
    command.add_argument("--only", nargs="+", choices=tuple(study.TASKS), metavar="TASK", help="run these tasks only")
    _where_options(command.add_argument_group("data"))
    command.set_defaults(run=_study)

    command = commands.add_parser("task1", help="the custom and a strong CNN on CIFAR-10, and what layers cost")
    _task_options(command, task1_custom_cnn.PROFILES)
    command.add_argument("--only", choices=task1_custom_cnn.PARTS, help="this part alone; costs train nothing")
    command.set_defaults(run=_task1)

    command = commands.add_parser("task2", help="experiments: augmentation, batch, BatchNorm, overfit and its cures")
    _task_options(command, task2_experiments.PROFILES)
    command.add_argument(
        "--only", nargs="+", choices=task2_experiments.EXPERIMENTS, metavar="EXPERIMENT",
        help=f"of {', '.join(task2_experiments.EXPERIMENTS)}; the last is not run in the profile cpu unless named",
    )  # fmt: skip
    _precision_option(command, "all trainings", "the profile's, float32")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="hand the runs to the workers of a Dask scheduler")
    where.add_argument("--workers", type=int, metavar="N", help="start so many local workers")
    command.set_defaults(run=_task2)

    command = commands.add_parser("task3", help="what the custom CNN and VGG16 have learnt")
    _task_options(command, task3_visualizations.PROFILES, reuse=False)
    command.add_argument("--only", choices=task3_visualizations.NETWORKS, help="look into this network and no more")
    command.add_argument("--weights", metavar="imagenet|FILE", help="VGG16's (default: the profile's)")
    command.add_argument("--model", type=pathlib.Path, metavar="MODEL.keras", help="a custom CNN (default: Task 1's)")
    command.add_argument("--second", type=pathlib.Path, metavar="MODEL.keras", help="the same from another seed")
    command.set_defaults(run=_task3)

    command = commands.add_parser("task4", help="transfer learning on buildings: from scratch to fine-tuned VGG16")
    _task_options(command, task4_transfer.PROFILES)
    command.add_argument(
        "--only", nargs="+", choices=task4_transfer.EXPERIMENTS, metavar="EXPERIMENT",
        help=f"of {', '.join(task4_transfer.EXPERIMENTS)}; parts are always run",
    )  # fmt: skip
    command.set_defaults(run=_task4)

    command = commands.add_parser("task5", help="land use and land cover from EuroSAT: the whole open project")
    _task_options(command, task5_eurosat.PROFILES)
    command.add_argument(
        "--only", nargs="+", choices=task5_eurosat.PARTS, metavar="PART", help=f"of {', '.join(task5_eurosat.PARTS)}"
    )
    _precision_option(command, "search, preparation and steps", "the profile's, float32")
    command.set_defaults(run=_task5)

    command = commands.add_parser("train", help="one network on one image set: train, test, describe")
    command.add_argument("--network", choices=models.NAMES, default="land_cover_cnn")
    _training_options(command)
    command.set_defaults(run=_train)

    command = commands.add_parser("data", help="get or check an image set")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    action = actions.add_parser("prepare", help="download a set to where the other commands find it")
    action.add_argument("name")
    action.add_argument("--data-dir", type=pathlib.Path, metavar="DIR")
    action.set_defaults(run=_data_prepare)
    action = actions.add_parser("check", help="audit a set: counts, sizes, bad files, duplicates, conflicting labels")
    action.add_argument("name", help="a set's name, or a folder or zip of images")
    action.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the audit as JSON")
    _data_options(action)
    _image_size_option(action)
    action.set_defaults(run=_data_check)

    command = commands.add_parser("report", help="the final report, a page and a PDF, from the published results")
    command.add_argument(
        "--results", type=pathlib.Path, default=pathlib.Path("results"), metavar="DIR", help="default: results"
    )
    command.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"), metavar="DIR", help="default: docs")
    command.set_defaults(run=_report, needs_tensorflow=False)

    command = commands.add_parser("evaluate", help="score a model on a split of an image set")
    command.add_argument("model", help="a .keras file with its .json beside it")
    command.add_argument("--data", required=True, help="a set's name, or a folder or zip of images")
    command.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="test", help="default test; all: every image"
    )
    command.add_argument(
        "--views", type=int, choices=(1, 2, 6, 8), default=1,
        help="test-time augmentation: average so many views of each image",
    )
    command.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the scores as JSON")
    _data_options(command)
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("predict", help="classify images")
    command.add_argument("model", help="a .keras file with its .json beside it")
    command.add_argument("paths", nargs="+", metavar="IMAGE|FOLDER")
    command.add_argument(
        "--views", type=int, choices=(1, 2, 6, 8), default=1,
        help="test-time augmentation: average so many views of each image",
    )
    command.add_argument("--csv", type=pathlib.Path, metavar="FILE", help="write the table as CSV")
    command.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table as JSON")
    _abstain_option(command)
    _precision_option(command, "the network", "the model's own")
    command.add_argument("--explain", type=pathlib.Path, metavar="DIR", help="write each image and its heat map there")
    command.set_defaults(run=_predict, needs_tensorflow=False)

    command = commands.add_parser("interpret", help="look into a model: filters, units, t-SNE, attribution")
    command.add_argument("model", help="a .keras file with its .json beside it")
    command.add_argument("--data", required=True, help="a set's name, or a folder or zip of images")
    command.add_argument("--split", choices=("train", "val", "test"), default="test")
    command.add_argument(
        "--profile", choices=tuple(interpretation.EXTENTS), help="default: quick for synthetic data, else cpu"
    )
    command.add_argument("--second", metavar="MODEL.keras", help="the same network from another seed, to compare")
    command.add_argument("--run-dir", type=pathlib.Path, metavar="DIR", help="where to write (runs/…); goes on")
    _data_options(command)
    command.set_defaults(run=_interpret)

    command = commands.add_parser("map", help="a land-cover map of a large scene")
    command.add_argument("model", help="a .keras file with its .json beside it")
    command.add_argument("scene", type=pathlib.Path, help="GeoTIFF, JPEG 2000, PNG or JPEG")
    command.add_argument("--out", type=pathlib.Path, metavar="DIR", help="default: SCENE-map; goes on")
    command.add_argument("--stride", type=int, metavar="PIXELS", help="between windows (default a quarter window)")
    command.add_argument("--views", type=int, choices=(1, 2, 6, 8), default=1, help="average so many views of a window")
    command.add_argument("--batch-size", type=int, default=128, metavar="N", help="windows a step (default 128)")
    command.add_argument("--bands", type=int, nargs=3, metavar=("R", "G", "B"), help="band numbers from 1")
    command.add_argument(
        "--nodata", type=float, metavar="VALUE", help="pixels with this value in all three bands are no data"
    )
    command.add_argument(
        "--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="values that become 0 and 255; give them for all but scenes of 8 bits, 0 2750 for Sentinel-2 reflectances "
        "times 10,000 (default: the 2nd and 98th percentile of the scene, which changes what the network sees)",
    )  # fmt: skip
    _precision_option(command, "the network", "the model's own")
    command.set_defaults(run=_map)

    command = commands.add_parser("export", help="write a model for other programs, checked against Keras")
    command.add_argument("model", help="a .keras file with its .json beside it")
    command.add_argument("--format", choices=("onnx", "tflite", "savedmodel"), required=True)
    command.add_argument("--out", type=pathlib.Path, metavar="PATH", help="default: beside the model")
    command.add_argument("--images", nargs="+", metavar="IMAGE|FOLDER", help="real images to check it on")
    command.set_defaults(run=_export)

    command = commands.add_parser("serve", help="a page that classifies the image dropped on it")
    command.add_argument("model", help="a .keras file with its .json beside it")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8765)
    _abstain_option(command)
    command.set_defaults(run=_serve)

    command = commands.add_parser("profile-model", help="what each layer of a model costs, and why")
    command.add_argument(
        "model", metavar="NAME|MODEL.keras", help="custom_cnn, land_cover_cnn, VGG16 and the like, or a file"
    )
    command.add_argument("--batch", type=int, default=1, metavar="N", help="images in the batch (default 1)")
    command.add_argument("--measure", action="store_true", help="also time every layer, and the machine")
    command.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table as JSON")
    command.add_argument(
        "--roofline", type=pathlib.Path, metavar="PNG", help="with --measure: draw layers and the machine's roofline"
    )
    command.set_defaults(run=_profile_model)
    return parser


def _check_outputs(arguments):
    """Before hours of computing rather than after: what shall be written has a folder, and takes nothing's place."""
    if explain := getattr(arguments, "explain", None):
        there = next(path for path in (explain, *explain.absolute().parents) if os.path.lexists(path))
        if not there.is_dir():
            raise UserError(f"No heat maps can be written to {explain}: {there} is no folder; name another.")
    outputs = [*filter(None, (getattr(arguments, name, None) for name in ("csv", "json", "roofline")))]
    if not outputs:
        return
    from tfproject.data.folders import has_image_extension
    from tfproject.files import is_device

    read = _read_files(arguments)
    for path in outputs:
        if is_device(path) and not path.is_dir():
            continue
        place = pathlib.Path(os.path.realpath(path))
        if path.is_file() and has_image_extension(path) and read.keys() & set(place.parents):
            read[place] = "an image of a folder that is read"
        if place in read and not path.is_dir():
            raise UserError(f"{path} is {read[place]} and would be overwritten; name another file.")
        read[place] = "named for another output, too,"
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path} cannot be written: there is no folder {path.parent}; make it, or name another.")
        if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
            why = "it is a folder" if path.is_dir() else f"the folder {path.parent} may not be written to"
            raise UserError(f"{path} cannot be written: {why}; name another.")


def _read_files(arguments):
    """{the path of a file that the command reads or that belongs to one: what it is}."""
    found = {}
    named = [getattr(arguments, name, None) for name in ("data", "name", "data_dir", "paths", "images")]
    paths = [path for item in named if item for path in (item if isinstance(item, list) else [item])]
    found |= {pathlib.Path(os.path.realpath(path)): "a file that is read" for path in paths if os.path.exists(path)}
    model = pathlib.Path(getattr(arguments, "model", None) or "")
    if model.is_file():
        found |= {model.with_suffix(suffix).resolve(): "the model's card" for suffix in (".json", ".md")}
        found[model.resolve()] = "the model"
    return found


def _check_publishing(arguments, name):
    """What is published stands in this repository's README as of the real set `name`."""
    from tfproject.report import readme

    readme.check()
    if arguments.data not in ("real", name):
        raise UserError(f"Only results of the real images are published, not of '{arguments.data}'; give --data real.")
    if _profile(arguments) == "quick":
        raise UserError("The profile 'quick' only tries things out; publish what the profile 'cpu' or 'full' gives.")


def _profile(arguments):
    generated = arguments.data.startswith("synthetic") and not pathlib.Path(arguments.data).exists()
    return arguments.profile or ("quick" if generated else "cpu")


def _task_directory(arguments):
    name = f"{arguments.command}-{pathlib.Path(arguments.data).name}-{_profile(arguments)}"
    return arguments.run_dir or pathlib.Path("runs", name)


def _load_options(arguments):
    return {
        "split_method": arguments.split_method, "split_files": arguments.split_files, "seed": arguments.seed,
        "data_dir": arguments.data_dir, "on_bad_image": arguments.on_bad_image, "on_overlap": arguments.on_overlap,
    }  # fmt: skip


def _load(arguments, name, image_size=None, part=None):
    from tfproject import data

    options = _load_options(arguments)
    return data.load(name, split=options.pop("split_method"), image_size=image_size, part=part, **options)


def _load_for(arguments, saved):
    """The image set that a saved model is to be looked at with; said are a split not its own, and what is left out."""
    from tfproject import data
    from tfproject.data.catalog import warn_of_bad_images

    if arguments.split == "all":
        if arguments.split_files or arguments.split_method or arguments.seed or arguments.on_overlap != "warn":
            raise UserError(
                "--split all takes every image; leave out --split-files, --split-method, --seed and --on-overlap."
            )
        images = data.load_all(arguments.data, arguments.data_dir, saved.image_size, arguments.on_bad_image)
    else:
        images = _load(arguments, arguments.data, saved.image_size, part=arguments.split)
    warn_of_bad_images(images)
    card = saved.card.get("data", {})
    whole_test = arguments.split == "test" and all(
        split.startswith("the set's own") for split in (card.get("split", ""), images.split_method)
    )
    if card.get("name") == images.name and card.get("sha256") != images.fingerprint and not whole_test:
        warnings.warn(
            f"{arguments.model} was trained on {images.name} in another split or edition ({card.get('split')}; here: "
            f"{images.split_method}), so that it may have been trained on some of these images.", stacklevel=2
        )  # fmt: skip
    if set(images.class_names) <= set(saved.class_names):
        return images.in_classes(saved.class_names)
    raise UserError(
        f"{arguments.model} knows the classes {', '.join(saved.class_names)} and {images.name} has "
        f"{', '.join(images.class_names)}; use a model on a set with its own classes."
    )


def _study(arguments):
    from tfproject.tasks import study

    profile = _profile(arguments)
    directory = arguments.run_dir or pathlib.Path("runs", f"study-{arguments.data}-{profile}")
    report = study.run_study(
        arguments.data, profile, directory, only=arguments.only, data_dir=arguments.data_dir,
        on_bad_image=arguments.on_bad_image,
    )  # fmt: skip
    print(f"Report: {report}")
    print(f"TensorBoard logs: {directory} (tensorboard --logdir {directory})")


def _task1(arguments):
    from tfproject.tasks import task1_custom_cnn

    if arguments.publish:
        _check_publishing(arguments, "cifar10")
    profile, directory = _profile(arguments), _task_directory(arguments)
    page = task1_custom_cnn.run_task(
        arguments.data, profile, directory, only=arguments.only, reuse="." if arguments.reuse else None,
        data_dir=arguments.data_dir,
    )  # fmt: skip
    print(f"Report: {page}")
    print(f"TensorBoard logs: {directory} (tensorboard --logdir {directory})")
    if arguments.publish:
        print(f"Published: {task1_custom_cnn.publish(directory)}")


def _task2(arguments):
    from tfproject.report import readme
    from tfproject.tasks import task2_experiments

    if arguments.publish:
        _check_publishing(arguments, "cifar10")
    profile, directory = _profile(arguments), _task_directory(arguments)
    page = task2_experiments.run_task(
        arguments.data, profile, directory, only=arguments.only, precision=arguments.precision,
        reuse=task2_experiments.RESULTS if arguments.reuse else None, scheduler=arguments.scheduler,
        workers=arguments.workers, data_dir=arguments.data_dir,
    )  # fmt: skip
    print(f"Report: {page}")
    print(f"TensorBoard logs: {directory / 'runs'} (tensorboard --logdir {directory / 'runs'})")
    if arguments.publish:
        print(f"Published: {task2_experiments.publish(directory)}")
        readme.update()


def _task3(arguments):
    from tfproject.tasks import task3_visualizations

    if arguments.publish:
        _check_publishing(arguments, "cifar10")
    profile, directory = _profile(arguments), _task_directory(arguments)
    page = task3_visualizations.run_task(
        arguments.data, profile, directory, only=arguments.only, weights=arguments.weights, model=arguments.model,
        second=arguments.second, data_dir=arguments.data_dir,
    )  # fmt: skip
    print(f"Report: {page}")
    print(f"TensorBoard logs: {directory} (tensorboard --logdir {directory})")
    if arguments.publish:
        print(f"Published: {task3_visualizations.publish(directory)}")


def _task4(arguments):
    from tfproject.tasks import task4_transfer

    if arguments.publish:
        _check_publishing(arguments, "terrassa")
    directory = _task_directory(arguments)
    page = task4_transfer.run_task(
        arguments.data, _profile(arguments), directory, only=arguments.only,
        reuse=task4_transfer.RESULTS if arguments.reuse else None, data_dir=arguments.data_dir,
    )  # fmt: skip
    print(f"Report: {page}")
    print(f"TensorBoard logs: {directory / 'runs'} (tensorboard --logdir {directory / 'runs'})")
    if arguments.publish:
        print(f"Published: {task4_transfer.publish(directory)}")


def _interpret(arguments):
    from tfproject.models import saved_models
    from tfproject.tasks import interpretation, interpretation_page

    saved = saved_models.load(arguments.model)
    images = _load_for(arguments, saved)
    name, data = pathlib.Path(arguments.model).stem, pathlib.Path(arguments.data).name
    directory = arguments.run_dir or pathlib.Path("runs", f"interpret-{name}-{data}-{_profile(arguments)}")
    interpretation.interpret_network(
        saved.model, images, directory, interpretation.EXTENTS[_profile(arguments)], split=arguments.split,
        other=saved_models.load(arguments.second).model if arguments.second else None,
    )  # fmt: skip
    page = interpretation_page.write_page(directory / "report.html", f"What {name} has learnt", {name: directory})
    print(f"Report: {page}")
    print(f"TensorBoard logs: {directory / 'tensorboard'} (tensorboard --logdir {directory / 'tensorboard'})")


def _task5(arguments):
    from tfproject.tasks import task5_eurosat

    if arguments.publish:
        _check_publishing(arguments, "eurosat")
    profile, directory = _profile(arguments), _task_directory(arguments)
    page = task5_eurosat.run_task(
        arguments.data, profile, directory, only=arguments.only, precision=arguments.precision,
        reuse="." if arguments.reuse else None, data_dir=arguments.data_dir,
    )  # fmt: skip
    print(f"Report: {page}")
    print(f"TensorBoard logs: {directory / 'runs'} (tensorboard --logdir {directory / 'runs'})")
    if arguments.publish:
        print(f"Published: {task5_eurosat.publish(directory)}")


def _train(arguments):
    from tfproject.tasks import train

    profile = _profile(arguments)
    data_name = pathlib.Path(arguments.data).name
    split = arguments.split_files.name if arguments.split_files else arguments.split_method or "default-split"
    directory = arguments.run_dir or pathlib.Path("runs", f"train-{data_name}-{split}-seed{arguments.seed}-{profile}")
    run = train.train_network(
        arguments.data, profile, directory,
        network=arguments.network, overrides=_overrides(arguments), strategy=arguments.strategy,
        resume=arguments.resume, image_size=arguments.image_size,
        trace=arguments.trace, **_load_options(arguments),
    )  # fmt: skip
    test = run.metrics["test"]
    low, high = test["accuracy_interval"]
    print(f"Test accuracy: {test['accuracy']:.2%} of {test['count']:,} images (95 % interval {low:.2%} to {high:.2%})")
    print(f"Model: {run.model_path}")
    print(f"Report: {run.directory / 'report.html'}")
    print(f"TensorBoard logs: {run.directory / 'tensorboard'}")


def _data_prepare(arguments):
    from tfproject.data import catalog

    print(catalog.prepare(arguments.name, arguments.data_dir))


def _data_check(arguments):
    import json

    from tfproject import data
    from tfproject.data import audit
    from tfproject.files import write_atomically

    files = audit.audit_files(arguments.name) if pathlib.Path(arguments.name).is_dir() else None
    refused = None
    try:
        try:
            images = _load(arguments, arguments.name, arguments.image_size)
        except UserError as error:  # perhaps it can be read and only not be split, so that what it holds can be told
            refused = error.with_traceback(None)  # which holds the images
            images = data.load_all(arguments.name, arguments.data_dir, arguments.image_size, arguments.on_bad_image)
    except UserError:
        if files:  # what they are like may be the very reason
            print(*audit.files_to_text(files), sep="\n")
        raise refused from None
    report = audit.audit(images)
    if files:
        report["files"] = files
    if refused:
        report["refused"] = str(refused)
    if arguments.json:
        write_atomically(arguments.json, json.dumps(report, indent=1) + "\n")
    print(audit.to_text(report, most_bad=audit.LIST_LIMIT))
    if refused:
        raise refused


def _evaluate(arguments):
    import json

    from tfproject import evaluation
    from tfproject.files import write_atomically
    from tfproject.models import saved_models

    saved = saved_models.load(arguments.model)
    images = _load_for(arguments, saved)
    scores = evaluation.evaluate(
        saved.model, images.splits[arguments.split], saved.class_names, views=arguments.views
    )  # fmt: skip
    if arguments.json:
        data = {"name": images.name, "split": images.split_method, "part": arguments.split,
                "sha256": images.fingerprint,
                "bad_images": [dataclasses.asdict(bad) for bad in images.bad_images]}  # fmt: skip
        write_atomically(arguments.json, json.dumps(scores.to_json() | {"data": data}, indent=1) + "\n")
    print(f"{images.name}, {arguments.split}; split: {images.split_method}")
    print(evaluation.summary_text(scores))


def _report(arguments):
    from tfproject.report import final_report

    for path in final_report.write(arguments.results, arguments.out):
        print(path)


def _predict(arguments):
    from tfproject import evaluation
    from tfproject.models import saved_models

    paths = evaluation.find_images(arguments.paths)
    saved = saved_models.load(arguments.model, arguments.precision)
    start = time.perf_counter()
    predictions = evaluation.predict_files(
        saved, paths, views=arguments.views, abstain_below=arguments.abstain_below
    )
    seconds = time.perf_counter() - start
    # Before the screen, which `| head` may close.
    if arguments.csv:
        predictions.to_csv(arguments.csv)
    if arguments.json:
        predictions.to_json(arguments.json)
    try:
        if arguments.explain:
            from tfproject import tools

            tools.explain_files(saved, predictions, arguments.explain)
    finally:  # the table is there whatever becomes of the heat maps
        print(predictions.to_text())
        print(f"{len(paths):,} files in {seconds:.1f} s ({len(paths) / seconds:.0f} files/s)")
    if arguments.explain:
        print(f"Heat maps: {arguments.explain}")
    if not len(predictions):
        raise UserError(f"None of the {len(predictions.bad)} files could be read; the reasons are above.")


def _map(arguments):
    from tfproject import tools
    from tfproject.models import saved_models

    directory = arguments.out or arguments.scene.parent / (arguments.scene.stem + "-map")
    result = tools.map_scene(
        saved_models.load(arguments.model, arguments.precision), arguments.scene, directory, stride=arguments.stride,
        views=arguments.views, batch_size=arguments.batch_size, bands=arguments.bands,
        value_range=arguments.value_range, no_data=arguments.nodata,
    )  # fmt: skip
    print(result.summary["reading"])
    print(result.to_text())
    if result.computed:
        speed = result.computed / result.seconds
        print(f"{result.computed:,} windows in {result.seconds:.1f} s ({speed:.0f} windows/s)")
    print(f"Map: {directory}")


def _export(arguments):
    from tfproject import evaluation, tools
    from tfproject.data.decoding import decode_images
    from tfproject.models import saved_models

    saved, images = saved_models.load(arguments.model), None
    if arguments.images:
        paths = evaluation.find_images(arguments.images)
        most = min(len(paths), 1000)  # evenly from all of them, as a folder for each class sorts them by class
        paths = [paths[i * len(paths) // most] for i in range(most)]
        images, bad = decode_images(paths, saved.image_size)
        if bad:
            first = f"{len(bad)} of {most:,} images cannot be read, such as {paths[min(bad)]}: {bad[min(bad)]}"
            if len(bad) == most:
                raise UserError(f"{first}; give images that can.")
            warnings.warn(f"{first}; they are left out.", stacklevel=2)
    suffix = f".{arguments.format}"
    done = tools.export_model(saved, arguments.out or saved.path.with_suffix(suffix), arguments.format, images)
    print(f"{done.path}: differs from Keras by {done.largest_difference:.1g} at most, on {done.images} images")


def _serve(arguments):
    from tfproject import tools
    from tfproject.models import saved_models

    def announce(address):
        signal.signal(signal.SIGINT, lambda *_: None)  # from here on the server ends itself
        print(address)

    saved = saved_models.load(arguments.model)
    tools.serve(saved, arguments.host, arguments.port, abstain_below=arguments.abstain_below, announce=announce)


def _profile_model(arguments):
    import json
    import textwrap

    from tfproject import cost
    from tfproject.cost.loading import default_input_shape
    from tfproject.files import write_atomically

    if arguments.roofline and not arguments.measure:
        raise UserError("--roofline draws measured speeds; give --measure too.")
    model = cost.load_model(arguments.model)
    table = cost.study(model, arguments.batch, default_input_shape(model), measure=arguments.measure)
    reasons = cost.explain(table)
    if arguments.json:
        write_atomically(arguments.json, json.dumps(table.to_json() | {"reasons": reasons}, indent=1) + "\n")
    if arguments.roofline:
        from tfproject.report import figures

        figures.save(cost.figures.roofline(table), arguments.roofline)
    print(table.to_text(), *(textwrap.fill(text, 120) for text in reasons), sep="\n\n")


def main(argv=None):
    """Run the command; returns the exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.showwarning = lambda message, *_: print(f"tfproject: warning: {message}", file=sys.stderr)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be valid in any encoding
    arguments = build_parser().parse_args(argv)
    try:
        with _ended_by_interrupt(arguments.command):
            _check_outputs(arguments)
            if arguments.needs_tensorflow:
                with native_log_silenced():
                    import tensorflow  # noqa: F401 - said here once, quietly, whoever imports it next
            arguments.run(arguments)
    except UserError as error:
        print(f"tfproject: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has read enough
    except OSError as error:
        what = error.filename or "A file"
        reason = error.strerror or type(error).__name__
        print(f"tfproject: {what} cannot be read or written ({reason}); name another, or make room.", file=sys.stderr)
        return 2
    return 0


# These write at their end alone, or nothing.
AT_ONCE = ("data", "evaluate", "predict", "export", "serve", "profile-model", "report")
_ENDING = threading.Lock()


@contextlib.contextmanager
def _ended_by_interrupt(command):
    """Within, Ctrl-C ends the program at once, also in a call of TensorFlow that takes minutes.

    Python's own handlers wait for the main thread; the system's part of them writes to a pipe, and a thread reads that.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen():
        while os.read(reader, 1):
            if signal.getsignal(signal.SIGINT) is interrupted:
                interrupted()
        os.close(reader)

    interrupted = functools.partial(_interrupted, command)
    before = signal.signal(signal.SIGINT, interrupted)
    wakened = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakened)
        signal.signal(signal.SIGINT, before)
        os.close(writer)


def _interrupted(command, *_):
    if not _ENDING.acquire(blocking=False):
        return
    # Files are written whole or not at all, so it is safe to end at once; a KeyboardInterrupt that is raised inside an
    # import or a traced function comes out as another error.
    kept = "what is finished is kept, and the same command goes on from there (with --resume where it has that)"
    if command in AT_ONCE:
        kept = "there is nothing to go on from"
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(error_stream(), f"\ntfproject: interrupted; {kept}.\n".encode())
    os._exit(130)
