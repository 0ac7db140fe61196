"""A study: experiments, the image set they are done on, and the directory that holds their runs."""

import dataclasses
import functools
import pathlib
import pkgutil
from collections.abc import Mapping

from tfproject.experiments.experiment import Experiment, Trial
from tfproject.training.run import Run


@dataclasses.dataclass(frozen=True)
class Study:
    """Experiments on an image set, and where their runs go.

    runs/KEY/         one run each (see `tfproject.training.Run`); trials of the same content share one
    *.csv *.png       the tables and figures
    metrics.json      the tables' numbers, and which runs they were made from
    index.html        the page

    Attributes:
        directory: the study's directory.
        experiments: in the order of the page.
        images: where the function to the image set is, as "module:function"; every process calls it for itself.
        image_options: its arguments by name.
    """

    directory: pathlib.Path
    experiments: tuple[Experiment, ...]
    images: str = "tfproject.data:load"
    image_options: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "directory", pathlib.Path(self.directory).absolute())

    @property
    def image_set(self):
        """The ImageSet, loaded once in a process."""
        return load_images(self.images, tuple(sorted(self.image_options.items())))

    def run_of(self, trial):
        """The Run, begun or not, that a trial's result is in."""
        return Run(self.directory / "runs" / trial.key(self.image_set))

    def outcome(self, trial):
        """What the runner measured of a finished trial, a dict; None while it is not finished."""
        return self.run_of(trial).metrics.get("outcome")

    def variations(self, experiment):
        """The experiment's variations, with the one that follows from the others once these are finished."""
        if experiment.follow_up is None:
            return experiment.variations
        results = []
        for variation in experiment.variations:
            outcomes = [self.outcome(Trial(variation, seed)) for seed in experiment.seeds]
            if None in outcomes:
                return experiment.variations
            results.append((variation, [outcome.get("val_accuracy") for outcome in outcomes]))
        return (*experiment.variations, experiment.follow_up(results))

    def trials(self, experiment):
        """All trials of an experiment that are known by now, seed by seed."""
        return [Trial(variation, seed) for seed in experiment.seeds for variation in self.variations(experiment)]

    def missing(self, experiments=None):
        """The trials that are not finished, those of the same content once.

        Args:
            experiments: names of experiments; None for all.
        """
        found = {}
        for experiment in self.experiments:
            if experiments is None or experiment.name in experiments:
                for trial in self.trials(experiment):
                    if self.outcome(trial) is None:
                        found.setdefault(self.run_of(trial).directory.name, trial)
        return list(found.values())


@functools.lru_cache(maxsize=2)
def load_images(images, options):
    """The image set of a study, kept for the process's next trial.

    Args:
        images: where the function is, as "module:function".
        options: its arguments, a tuple of (name, value).
    """
    return pkgutil.resolve_name(images)(**dict(options))
