"""Trainings of several stages, each with a recipe of its own that goes on from the weights of the one before."""

import dataclasses
import pathlib

from tfproject.errors import UserError
from tfproject.training.run import Run


def head_first(recipe, base_until, head_epochs, head_rate):
    """Two stages: the new layers alone on the frozen backbone, then with what the recipe trains of it.

    A new head's first steps are large and random, and would spoil the backbone's weights. The head sees the images as
    they are, so that the backbone runs once on each.

    Args:
        recipe: of the second stage.
        base_until: the backbone's last layer.
        head_epochs, head_rate: epochs and learning rate of the first stage.

    Returns:
        A tuple of two Recipes.
    """
    head = dataclasses.replace(
        recipe, frozen_until=base_until, epochs=head_epochs, learning_rate=head_rate, layer_rates=(), views=1,
        augment=(),
    )  # fmt: skip
    return head, recipe


def gradual_unfreezing(recipe, cuts, epochs):
    """A stage for each cut, from the output to the image, so that ever more of the backbone is trained.

    Args:
        recipe: of the last stage, apart from `frozen_until`.
        cuts: each stage's last frozen layer, in the stages' order.
        epochs: of each stage but the last.

    Returns:
        A tuple of Recipes.

    Reference: J. Howard and S. Ruder 2018, "Universal Language Model Fine-tuning", section 3.3.
    """
    stages = [dataclasses.replace(recipe, frozen_until=cut, epochs=epochs) for cut in cuts]
    return (*stages[:-1], dataclasses.replace(stages[-1], epochs=recipe.epochs))


def fit_stages(build_model, image_set, recipes, directory, **options):
    """`fit` once for each recipe, each from the weights that the one before ended with; begun before, it goes on.

    Args:
        build_model, image_set: as for `fit`.
        recipes: Recipes of one or more stages.
        directory: the last stage's run directory; the earlier ones' are stage-1, stage-2 ... in it.
        **options: of `fit`, for every stage.

    Returns:
        The last stage's Run.

    Raises:
        UserError: as `fit`, or if there is no recipe.
    """
    from tfproject.training.fitting import fit  # TensorFlow takes seconds to import; stages are made without it

    if not recipes:
        raise UserError("A training needs at least one stage; give a recipe for each.")
    directory, run = pathlib.Path(directory), None
    for number, recipe in enumerate(recipes, start=1):
        place = directory if number == len(recipes) else directory / f"stage-{number}"
        run = fit(build_model if run is None else _continued(build_model, run), image_set, recipe, place, **options)
    return run


def stages_of(directory):
    """The Runs of a training's stages in order, the last one among them."""
    directory = pathlib.Path(directory)
    earlier = sorted(directory.glob("stage-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return [*map(Run, earlier), Run(directory)]


def _continued(build_model, run):
    """The network with a finished run's weights to begin with."""
    weights = run.model.get_weights()

    def build(image_shape, class_count):
        model = build_model(image_shape, class_count)
        model.set_weights(weights)
        return model

    return build
