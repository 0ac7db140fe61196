"""Task 3: what two networks have learnt of CIFAR-10, the custom CNN and VGG16 with ImageNet weights."""

import dataclasses
import functools
import json
import pathlib

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.tasks.interpretation import EXTENTS, Extent, interpret_network, to_json
from tfproject.tasks.interpretation_page import write_page
from tfproject.tasks.publishing import copy
from tfproject.training.recipe import Recipe

SETS = {"real": "cifar10", "synthetic": "synthetic-objects"}
NETWORKS = ("CustomCNN", "VGG16")
SAVED = pathlib.Path("saved_models", "cifar10_custom_cnn.keras")  # Task 1's, of which real data has one
HEAD = (256, 128)  # units of the dense layers on VGG16's convolutions, which stay as ImageNet left them
HEAD_RECIPE = Recipe(
    epochs=10, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=1e-2, schedule="one-cycle",
    frozen_until="block5_pool",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Profile:
    """How large the task is.

    Attributes:
        extent: how much of the custom CNN is looked at, and how closely.
        vgg16_extent: the same of VGG16, each of whose units costs far more; None for the same.
        vgg16_side: height and width of VGG16's images.
        vgg16_weights: see `weights` of `tfproject.models.backbones.backbone`.
        head_images: (training, validation) images that VGG16's head is trained with; None for all.
        custom: options of the custom CNN.
        changes: fields of the recipes that are changed.
        seeds: of the custom CNNs trained where none is given; the second is compared with the first.
    """

    extent: Extent
    vgg16_extent: Extent | None = None
    vgg16_side: int = 64
    vgg16_weights: str | None = "imagenet"
    head_images: tuple[int | None, int | None] = (None, None)
    custom: dict = dataclasses.field(default_factory=dict)
    changes: dict = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)


PROFILES = {
    "quick": Profile(
        EXTENTS["quick"],
        vgg16_side=32,
        vgg16_weights=None,
        custom={"width": 0.5},
        changes={"epochs": 3, "batch_size": 64, "precision": "float32", "jit_compile": False},
        seeds=(0, 1),
    ),
    "cpu": Profile(
        dataclasses.replace(EXTENTS["cpu"], silenced=None),
        vgg16_extent=dataclasses.replace(
            EXTENTS["cpu"], maximised=8, steps=100, silenced=None, silenced_images=64, checked=48
        ),
        head_images=(15_000, 2_000),
    ),
}


def run_task(
    data, profile, directory, *, only=None, weights=None, model=None, second=None, data_dir=None, on_bad_image="list"
):
    """Look into the custom CNN and into VGG16 with a head of its own, and tell of both side by side.

    Args:
        data: "real" (CIFAR-10), "synthetic", or a set's name or folder as `tfproject.data.load` takes it.
        profile: a name from PROFILES.
        directory: where everything goes; begun before, the task goes on where it stopped.
        only: one of NETWORKS: look into that one and no more.
        weights: VGG16's, "imagenet" or the path of a weights file; None for the profile's.
        model: the path of a custom CNN; None for Task 1's in saved_models/ with real data where it is there, and else
            for one that is trained here.
        second: the path of a second one, from another seed, to compare it with.
        data_dir, on_bad_image: see `tfproject.data.load`.

    Returns:
        The page's pathlib.Path, with metrics.json beside it.

    Raises:
        UserError: if the images or weights cannot be loaded, or the directory holds what was found of other ones.
    """
    from tfproject import data as image_sets

    directory, size = pathlib.Path(directory), PROFILES[profile]
    load = functools.partial(image_sets.load, SETS.get(data, data), data_dir=data_dir, on_bad_image=on_bad_image)
    metrics = _read_metrics(directory)
    for name in NETWORKS if only is None else (only,):
        extent = size.extent
        if name == "CustomCNN":
            images = load()
            if model is None and data == "real" and SAVED.exists():
                model = SAVED
            (network, other), subtitle = _custom_cnns(images, size, directory / "runs", model, second)
        else:
            images, other = load(image_size=(size.vgg16_side, size.vgg16_side)), None
            network, subtitle = _vgg16(images, size, directory / "runs", weights or size.vgg16_weights)
            extent = size.vgg16_extent or extent
        summary = interpret_network(network, images, directory / name, extent, other=other)
        metrics["networks"][name] = {"subtitle": subtitle} | summary
        metrics["data"] = {
            "name": images.name, "description": images.origin.description, "synthetic": images.origin.synthetic,
            "split": images.split_method,
        }  # fmt: skip
        write_atomically(directory / "metrics.json", to_json(metrics))
    directories = {name: directory / name for name in NETWORKS if name in metrics["networks"]}
    return write_page(directory / "report.html", "Task 3: what the networks have learnt", directories, metrics)


def _read_metrics(directory):
    path = directory / "metrics.json"
    return json.loads(path.read_text()) if path.exists() else {"networks": {}}


def _custom_cnns(images, size, directory, path, second):
    """The custom CNN and, where there is one, that of a second seed, else None; and in words what the first is."""
    from tfproject import models, training
    from tfproject.tasks.task1_custom_cnn import CUSTOM

    other = None if second is None else _saved(second, images)
    if path is not None:
        return (_saved(path, images), other), f"the course's custom CNN from {pathlib.Path(path).name}"
    trained = []
    for seed in size.seeds if other is None else size.seeds[:1]:
        recipe = dataclasses.replace(CUSTOM, seed=seed, **size.changes)
        network = functools.partial(models.custom_cnn, **size.custom) if size.custom else models.custom_cnn
        run = training.fit(network, images.with_validation_in_training(), recipe, directory / f"custom_cnn-seed{seed}")
        trained.append(run.model)
    width = size.custom.get("width", 1.0)
    narrower = f", {width:g} times as wide" if width != 1 else ""
    subtitle = f"the course's custom CNN{narrower}, trained here for {recipe.epochs} epochs"
    return (*trained, other)[:2], subtitle


def _saved(path, images):
    from tfproject.models import saved_models

    saved = saved_models.load(path)
    if saved.class_names != images.class_names or saved.image_size != images.image_shape[:2]:
        raise UserError(
            f"{path} knows the classes {', '.join(saved.class_names)} in images of {saved.image_size}, and "
            f"{images.name} has {', '.join(images.class_names)} in {images.image_shape[:2]}; give a model of its own."
        )
    return saved.model


def _vgg16(images, size, directory, weights):
    """VGG16 with a head trained on the images, its convolutions as they were, each image run through them once."""
    from tfproject import training
    from tfproject.experiments.experiment import Trial, Variation

    splits = images.train, images.val  # a smaller set is taken whole
    train, val = (count and min(count, len(split)) for count, split in zip(size.head_images, splits))
    head = Variation(
        "VGG16's head", dataclasses.replace(HEAD_RECIPE, **size.changes), "tfproject.models.backbones:pretrained_cnn",
        {"name": "VGG16", "weights": weights, "head": HEAD}, train_images=train, val_images=val,
    )  # fmt: skip
    trial = Trial(head, seed=0)
    model = training.fit(trial.build_model, trial.images(images), trial.recipe, directory / "vgg16").model
    known = {"imagenet": "ImageNet weights", None: "random weights, which show the machinery and nothing else"}
    origin = known.get(weights) or f"the weights of {pathlib.Path(weights).name}"
    side = size.vgg16_side
    return model, (
        f"VGG16 with {origin}, for images of {side}x{side}, with a head of dense layers trained here on "
        f"{len(trial.images(images).train):,} images for {trial.recipe.epochs} epochs"
    )


RESULTS = pathlib.Path("results", "task3-visualizations")


def publish(directory, root="."):
    """Copy page, figures, tables and numbers to results/, and tell the README.

    Args:
        directory: the task's directory, after `run_task`.
        root: the repository.

    Returns:
        The results folder, a pathlib.Path.
    """
    from tfproject.report import readme

    readme.check(root)
    directory, goal = pathlib.Path(directory), pathlib.Path(root) / RESULTS
    if not (directory / "report.html").exists():
        raise UserError(f"{directory} holds no finished Task 3; run `tfproject task3` first.")
    paths = [directory / "metrics.json", directory / "report.html"]
    for name in NETWORKS:
        paths += [*directory.glob(f"{name}/*.csv"), *directory.glob(f"{name}/figures/*.png")]
        paths += directory.glob(f"{name}/metrics.json")
    copy(directory, goal, paths)
    readme.update(root)
    return goal
