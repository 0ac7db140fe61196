"""Exported models, run from their files by the programs they are for."""

import json
import os

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import toy

from tfproject.errors import UserError
from tfproject.models import saved_models
from tfproject.tools import export
from tfproject.tools.export import FORMATS, export_model, made_up_images

CLASSES = ("red", "green", "blue")
SUFFIX = {name: suffix for name, (_, suffix, _) in FORMATS.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    network = toy.network((16, 16, 3), 3)
    network.layers[-1].kernel.assign(network.layers[-1].kernel * 3)
    path = saved_models.save(network, tmp_path_factory.mktemp("model") / "tiny.keras", CLASSES)
    return saved_models.load(path)


def test_the_model_s_own_card_is_not_overwritten(model):
    card = model.path.with_suffix(".json").read_bytes()
    with pytest.raises(UserError, match="is the model's own card"):
        export_model(model, model.path.with_suffix(""), "savedmodel")
    assert model.path.with_suffix(".json").read_bytes() == card and not model.path.with_suffix("").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_says_what_keras_says(model, tmp_path, format):
    path = tmp_path / f"tiny{SUFFIX[format]}"
    done = export_model(model, path, format)
    assert done.path == path and 0 <= done.largest_difference <= 1e-4 and done.images == 48
    assert sorted(os.listdir(tmp_path)) == [path.name, path.name + ".json"]
    about = json.loads((tmp_path / (path.name + ".json")).read_text())
    assert about["class_names"] == list(CLASSES) and about["image_size"] == [16, 16]

    images = np.random.default_rng(1).uniform(0, 255, (11, 16, 16, 3)).astype(np.float32)
    expected = model.model(images, training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 0.05  # images differ, so that a wrong answer would show
    if format == "onnx":
        session = onnxruntime.InferenceSession(path)
        found = session.run(None, {session.get_inputs()[0].name: images})[0]
    elif format == "tflite":
        interpreter = tf.lite.Interpreter(str(path))
        interpreter.resize_tensor_input(0, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    else:
        loaded = tf.saved_model.load(str(path))
        found = loaded.serve(tf.constant(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_an_interrupted_export_left_goes_and_nothing_else_does(model, tmp_path):
    for name in (".tiny.onnx.x1y2z3" + export.TEMPORARY, ".tiny.onnx.mine", ".other.onnx.x1" + export.TEMPORARY):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").touch()
    export_model(model, tmp_path / "tiny.onnx", "onnx")
    left = {".tiny.onnx.mine", ".other.onnx.x1" + export.TEMPORARY}
    assert set(os.listdir(tmp_path)) == left | {"tiny.onnx", "tiny.onnx.json"}


@pytest.mark.parametrize("spoilt", ["weights", "nan"])
def test_an_export_that_differs_is_refused_and_removed(model, tmp_path, monkeypatch, spoilt):
    original = keras.Model.export

    def spoil(self, path, **options):
        other = keras.models.clone_model(self)
        other.set_weights(self.get_weights())
        bias = other.layers[-1].bias
        bias.assign([0.01, 0, 0] if spoilt == "weights" else [np.nan, 0, 0])
        other(np.zeros((1, 16, 16, 3)))
        return original(other, path, **options)

    monkeypatch.setattr(keras.Model, "export", spoil)
    with pytest.raises(UserError) as error:
        export_model(model, tmp_path / "tiny.onnx", "onnx")
    assert str(error.value).endswith(".") and "a probability differs" in str(error.value)
    assert not os.listdir(tmp_path)


def test_real_images_are_what_it_is_checked_on(model, tmp_path, monkeypatch):
    seen = []

    def zeros(images):
        seen.append(images)
        return np.zeros((len(images), 3))

    monkeypatch.setitem(export._RUNNERS, "savedmodel", lambda path: zeros)
    images = np.random.default_rng(2).integers(0, 256, (1, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="differs"):
        export_model(model, tmp_path / "folder", "savedmodel", images)
    np.testing.assert_array_equal(seen[0], images)
    assert not os.listdir(tmp_path)


def test_made_up_images_are_of_many_kinds():
    images = made_up_images((16, 20))
    assert images.shape == (48, 16, 20, 3) and images.dtype == np.uint8
    spread = images.std(axis=(1, 2)).mean(axis=1)
    assert spread.min() == 0 and spread.max() > 50 and images.min() < 5 and images.max() > 250


def test_what_cannot_be_written_is_one_sentence(model, tmp_path):
    (tmp_path / "taken").mkdir()
    cases = [
        ("tiny.onnx", "pickle", None), ("tiny.tf", "onnx", None), ("none/tiny.onnx", "onnx", None),
        ("taken", "savedmodel", None), ("tiny.onnx", "onnx", np.zeros((2, 8, 8, 3), np.uint8)),
    ]  # fmt: skip
    for name, format, images in cases:
        with pytest.raises(UserError) as error:
            export_model(model, tmp_path / name, format, images)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["taken"]
