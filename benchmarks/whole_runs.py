"""Seconds to a stated validation accuracy: our network and recipe, against the course's in Keras' defaults.

EuroSAT to 97 % and CIFAR-10 to 90 %. The course's: its custom CNN with BatchNorm, `compile` with Adam and `fit` on
images in memory, batches of 128, no augmentation, as its best run had it. Where that never gets there, ours is compared
with all of its time, on CIFAR-10 that of eight times the epochs that it had, and with its time to its own best, to
which ours is compared as well. Ours is the recommended recipe with its schedule over fewer epochs, as the goals ask for
less than it reaches. Epochs and their validation count, starting up does not. Ours predicts as it is meant to be used,
with several views of an image, once, at its end. Stopped and started again, a run goes on where it was; the runs of a
seed follow each other. The course's trains for long, so that it may have fewer seeds: they are compared again. Of both
every epoch counts as the run's fastest one, as what else the machine does in hours only makes them longer.
"""

import argparse
import csv
import pathlib
import statistics
import subprocess
import sys
import time

import machine
from claims import claim, measure

GOALS = {"eurosat": 0.97, "cifar10": 0.90}
EPOCHS = {"eurosat": 8, "cifar10": 12}  # of ours
HAD_EPOCHS = {"cifar10": 10}  # of the course
COURSE_EPOCHS = {"eurosat": 20, "cifar10": 80}  # of the course's, which here is trained on
TO_ITS_BEST = {"eurosat"}  # where the course's time to its own best is what ours was to be four times faster than
VIEWS = {"eurosat": 8, "cifar10": 6}  # of an image, by ours at its end
BATCH = 128  # of the course
TIMED = (
    "epochs with their validation count, each as the fastest of its run; starting up and choosing the precision do not"
)


def seconds_to(goal, accuracies, seconds):
    """Seconds until an epoch ended with the goal reached, or else of all epochs."""
    reached = [i for i, accuracy in enumerate(accuracies) if accuracy >= goal]
    return sum(seconds[: reached[0] + 1] if reached else seconds)


def undisturbed(seconds):
    """Those of a run's epochs, each taken to be the fastest one: what else the machine does only makes them longer."""
    return [min(seconds)] * len(seconds)


def ours(image_set, name, seed, directory, epochs):
    """(accuracies, seconds) of so many epochs of the recommended recipe, and of the views at the end."""
    import dataclasses

    from tfproject import evaluation, models, training
    from tfproject.models import whitened
    from tfproject.tasks.task5_eurosat import LAND_COVER

    if name == "cifar10":
        build, recipe = whitened.whitened_for(image_set.train.images), whitened.RECIPE
    else:
        build, recipe = models.land_cover_cnn, LAND_COVER
    recipe = dataclasses.replace(recipe, seed=seed, epochs=epochs)
    run = training.fit(build, image_set, recipe, directory, progress=False)
    start = time.perf_counter()
    scores = evaluation.evaluate(run.model, image_set.val, image_set.class_names, views=VIEWS[name])
    took = time.perf_counter() - start
    return [*run.history["val_accuracy"], scores.accuracy], [*undisturbed(run.history["seconds"]), took]


def courses(image_set, name, seed, directory, epochs):
    """The same for the course's network, with Keras alone; as a tutorial would where tfproject was not imported yet."""
    import keras

    from tfproject import models

    keras.utils.set_random_seed(seed)
    classes = len(image_set.class_names)
    model = models.custom_cnn(image_set.image_shape, classes)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "history.csv"
    if len(_rows(log)) < epochs:
        start = [0.0]
        train, val = image_set.train, image_set.val
        model.fit(
            train.images, train.labels, validation_data=(val.images, val.labels), epochs=epochs, verbose=0,
            batch_size=BATCH,
            callbacks=[
                # Before the other, so that keeping the state is not counted.
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=lambda epoch, logs: start.__setitem__(0, time.perf_counter()),
                    on_epoch_end=lambda epoch, logs: _add(log, epoch, logs, time.perf_counter() - start[0]),
                ),
                keras.callbacks.BackupAndRestore(str(directory / "state"), delete_checkpoint=False),
            ],
        )  # fmt: skip
    return _history(log, epochs)


def courses_apart(image_set, name, seed, directory, epochs):
    """The same in a process of its own, with TensorFlow's own threads and kernels."""
    command = [sys.executable, __file__, "--course", name, str(seed), str(directory), str(epochs)]
    subprocess.run(command, env=machine.plain_environment(), check=True)
    return _history(directory / "history.csv", epochs)


def _history(log, epochs):
    rows = _rows(log)[:epochs]
    return [float(row["val_accuracy"]) for row in rows], undisturbed([float(row["seconds"]) for row in rows])


def _rows(log):
    """The last row of each epoch: one that was interrupted may stand there twice."""
    if not log.exists():
        return []
    with open(log, newline="") as file:
        return list({row["epoch"]: row for row in csv.DictReader(file)}.values())


def _add(log, epoch, logs, seconds):
    new = not log.exists()
    with open(log, "a", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "accuracy", "val_accuracy", "seconds"], extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({**logs, "epoch": epoch, "seconds": seconds})


def trained(name, arguments):
    from tfproject import data

    image_set = data.load(name)
    rows = []
    for seed in range(arguments.seeds):
        found = {}
        for who, train, epochs in (
            ("ours", ours, arguments.epochs or EPOCHS[name]),
            ("course", courses_apart, arguments.course_epochs or COURSE_EPOCHS[name]),
        ):
            own = seed if who == "ours" else seed % arguments.course_seeds
            directory = arguments.directory / f"{image_set.name}-{who}-seed{own}"
            found[who] = train(image_set, name, own, directory, epochs)
        rows.append({"seed": seed, "course_seed": own} | compared(found, arguments.goal or GOALS[name]))
    return rows


def compared(found, goal):
    """What each took to the goal and to the course's best, from both trainings' (accuracies, seconds)."""
    best = max(found["course"][0])
    return {
        who: {
            "best": max(accuracies), "accuracies": accuracies, "seconds": seconds_to(goal, accuracies, seconds),
            "seconds_to_the_course_s_best": seconds_to(best, accuracies, seconds),
        }
        for who, (accuracies, seconds) in found.items()
    }  # fmt: skip


def course_alone(name, seed, directory, epochs):
    """The course's training in this process."""
    import tensorflow  # noqa: F401  before tfproject, which chooses other kernels

    from tfproject import data

    courses(data.load(name), name, int(seed), pathlib.Path(directory), int(epochs))


def claim_of(name, rows, goal):
    """The rows of the table. A time to the goal is told of the runs of ours that got there, and how many did."""

    there = [row for row in rows if row["ours"]["best"] >= goal]

    def compare(what, key, against="", theirs="", remark="", among=rows, **more):
        runs = len({row.get("course_seed", row["seed"]) for row in among})
        if runs < len(among):
            remark = "; ".join(filter(None, (remark, f"{len(among)} runs of ours, {runs} of theirs")))
        pairs = ([row[who][which or key] for row in among] for who, which in (("ours", ""), ("course", theirs)))
        who = "the course's CNN and recipe in Keras' defaults" + against
        return claim(f"{name} to {what}", who, "s", *pairs, remark=remark, **more)

    best, reached = max(row["course"]["best"] for row in rows), [100 * row["ours"]["best"] for row in rows]
    alone = statistics.median(row["ours"]["accuracies"][-2] for row in rows)
    to_its_best, to_goal = "seconds_to_the_course_s_best", f"{goal:.0%} on validation"
    if len(there) < len(rows):
        to_goal += f", the {len(there)} of {len(rows)} runs that got there"
    claims = [
        measure(
            f"{name}: the best on validation, ours", "%", reached, target=100 * goal,
            remark=f"with {VIEWS[name]} views of an image at the end, with one {alone:.1%}",
        ),
        measure(f"{name}: runs of ours that got to {goal:.0%}, of {len(rows)}", "runs", [len(there)], target=len(rows)),
    ]  # fmt: skip
    if there and all(row["course"]["best"] >= goal for row in rows):
        claims.append(compare(to_goal, "seconds", among=there, target=4.0, remark=TIMED))
    elif there and best < goal:
        its_best, course = name in TO_ITS_BEST, rows[0]["course"]["accuracies"]
        remark = (
            f"the course's never got there, so that the ratio is at least this; its best, {max(course):.1%}, it had "
            f"after epoch {course.index(max(course)) + 1} of {len(course)}"
        )
        if name in HAD_EPOCHS:
            remark += f", and of its own {HAD_EPOCHS[name]} epochs {max(course[: HAD_EPOCHS[name]]):.1%}"
        claims += [
            compare(
                to_goal, "seconds", f", all of its {len(course)} epochs", target=None if its_best else 4.0,
                remark=f"{remark}; {TIMED}", among=there,
            ),
            compare(
                to_goal, "seconds", f" to its own best, {best:.1%}", to_its_best, target=4.0 if its_best else None,
                among=there,
            ),
        ]  # fmt: skip
    if best < goal and all(row["ours"]["best"] >= row["course"]["best"] for row in rows):
        claims.append(compare(f"the course's best, {best:.1%} on validation", to_its_best))
    return claims


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of ours (default 3)")
    parser.add_argument("--course-seeds", type=int, default=1, help="runs of the course's (default 1)")
    parser.add_argument("--epochs", type=int, help=f"of ours (default {EPOCHS})")
    parser.add_argument("--course-epochs", type=int, help=f"of the course's (default {COURSE_EPOCHS})")
    parser.add_argument("--goal", type=float, help="another accuracy, 0 to 1")
    parser.add_argument("--directory", type=pathlib.Path, default=pathlib.Path("runs", "benchmarks", "whole"))
    parser.add_argument("--course", nargs=4, metavar=("SET", "SEED", "DIRECTORY", "EPOCHS"), help="that training alone")
    arguments = parser.parse_args()
    if arguments.course:
        return course_alone(*arguments.course)
    machine.check_runs(arguments.directory)
    result, claims = {}, []
    for name in arguments.sets:
        result[name] = trained(name, arguments)
        claims += claim_of(name, result[name], arguments.goal or GOALS[name])
        machine.write("whole_runs", {"runs": result, "claims": claims, "machine": machine.describe()})


if __name__ == "__main__":
    main()
