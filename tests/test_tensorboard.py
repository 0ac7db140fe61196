"""What TensorBoard finds in the logs that are written for it, read back by its own code."""

import dataclasses
import io
import json

import numpy as np
import pytest
import toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfproject import interpret, training
from tfproject.experiments import Experiment, Study, Variation, run_study
from tfproject.training import Recipe

RECIPE = Recipe(
    epochs=2, batch_size=40, learning_rate=0.05, schedule="constant", weight_decay=0.0, precision="float32",
    jit_compile=False,
)  # fmt: skip


def events(directory):
    found = EventAccumulator(str(directory), size_guidance={"tensors": 0, "images": 0})
    found.Reload()
    return found


def scalars(directory, tag):
    """A dict from step to value, of what summary.scalar wrote."""
    import tensorflow as tf

    return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events(directory).Tensors(tag)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A traced run of one epoch of twenty-four steps."""
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=5)
    directory = tmp_path_factory.mktemp("run")
    return training.fit(toy.network, toy.image_set(), recipe, directory, profile=True, progress=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four runs of two epochs: the two variations of an experiment from two seeds."""
    plain = Variation("plain", RECIPE, "toy:network")
    small = Variation("small", dataclasses.replace(RECIPE, batch_size=20), "toy:network", train_images=60)
    experiment = Experiment("batch", "Which?", (plain, small), "plain", (0, 1), figures=())
    made = Study(tmp_path_factory.mktemp("study"), (experiment,), images="toy:image_set")
    run_study(made, progress=False)
    return made


def runs_of(study):
    return sorted(path.parent for path in study.directory.glob("runs/*/metrics.json"))


def test_scalars_are_the_runs_history(study):
    for folder in runs_of(study):
        history = training.Run(folder).history
        for split, prefix in (("train", ""), ("validation", "val_")):
            for quantity in ("loss", "accuracy"):
                found = scalars(folder / "tensorboard" / split, f"epoch_{quantity}")
                assert found == pytest.approx(dict(enumerate(history[prefix + quantity])), abs=1e-6)


def test_the_graph_holds_the_networks_operations(run):
    found = events(run.directory / "tensorboard" / "train")
    operations = [node.op for node in _graph(found).node]
    assert operations.count("Conv2D") == 2 and "Softmax" in operations


def _graph(found):
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef()
    graph.ParseFromString(found.Graph().SerializeToString())
    return graph


def test_a_trace_is_where_the_profiler_looks(run):
    (trace,) = run.directory.glob("tensorboard/train/plugins/profile/*/*.xplane.pb")
    content = trace.read_bytes()
    assert b"train_step" in content or b"Conv2D" in content


def test_a_figure_comes_back_pixel_by_pixel(run):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    run.log_figure("confusion_matrix", png.getvalue())
    (event,) = events(run.directory / "tensorboard" / "figures").Tensors("confusion_matrix")
    width, height, shown = event.tensor_proto.string_val
    assert (int(width), int(height)) == (30, 20)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), pixels)


def groups(study):
    """What the HParams dashboard, its table and its parallel coordinates, is sent: experiment and session groups."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    read = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0, "hparams": 0})
    read.AddRunsFromDirectory(str(study.directory / "runs"))
    read.Reload()
    provider = data_provider.MultiplexerDataProvider(read, str(study.directory))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider, multiplexer=read))
    request = api_pb2.GetExperimentRequest(experiment_name="")
    experiment = get_experiment.Handler(RequestContext(), context, "", request).run()
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100)
    request.allowed_statuses.extend(api_pb2.Status.values())
    for info in experiment.metric_infos:
        request.col_params.add(metric=info.name)
    for info in experiment.hparam_infos:
        request.col_params.add(hparam=info.name)
    return experiment, list(list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups)


def test_hparams_show_each_run_with_its_settings_and_results(study):
    experiment, found = groups(study)
    known = {info.name: list(_values(info)) for info in experiment.hparam_infos}
    assert known["batch_size"] == [20, 40] and set(known["train_images"]) == {"60", "all"}
    assert [info.name.tag for info in experiment.metric_infos] == [
        "outcome/val_accuracy", "outcome/train_accuracy", "outcome/gap",
    ]  # fmt: skip
    shown = {group.name: group for group in found}
    assert set(shown) == {folder.name for folder in runs_of(study)}
    for folder in runs_of(study):
        metrics = json.loads((folder / "metrics.json").read_text())
        group = shown[folder.name]
        assert group.hparams["batch_size"].number_value == json.loads(
            (folder / "recipe.json").read_text()
        )["recipe"]["batch_size"]  # fmt: skip
        values = {value.name.tag: value.value for value in group.metric_values}
        for name in ("val_accuracy", "train_accuracy", "gap"):
            assert values[f"outcome/{name}"] == pytest.approx(metrics["outcome"][name], abs=1e-6)
        # What one axis of the parallel coordinates needs of every line.
        assert set(known) <= set(group.hparams)


def _values(info):
    for value in info.domain_discrete.values:
        yield value.number_value if value.HasField("number_value") else value.string_value


def test_hparams_sessions_have_an_end(study):
    from tensorboard.plugins.hparams import api_pb2

    _, found = groups(study)
    for group in found:
        (session,) = group.sessions
        assert session.status == api_pb2.STATUS_SUCCESS
        assert session.start_time_secs <= session.end_time_secs


def test_the_projector_has_points_labels_and_pictures(tmp_path):
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    images = toy.image_set()
    split = images.test
    points = np.random.default_rng(0).normal(size=(len(split), 5))
    interpret.write_projector(tmp_path, {"dense": points}, split.labels, images.class_names, split.names, split.images)
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (entry,) = config.embeddings
    np.testing.assert_allclose(np.loadtxt(tmp_path / entry.tensor_path, delimiter="\t"), points, rtol=1e-5)
    head, *lines = (tmp_path / entry.metadata_path).read_text().splitlines()
    classes = [line.split("\t")[head.split("\t").index("class")] for line in lines]
    assert classes == [images.class_names[label] for label in split.labels]
    sheet = np.asarray(Image.open(tmp_path / entry.sprite.image_path))
    width, height = entry.sprite.single_image_dim
    per_side = sheet.shape[1] // width
    for i in (0, 7, len(split) - 1):
        top, left = i // per_side * height, i % per_side * width
        np.testing.assert_array_equal(sheet[top : top + height, left : left + width], split.images[i])
