import socket
import threading
import time

import keras
import numpy as np
import pytest

from tfproject import models
from tfproject.errors import UserError
from tfproject.models import backbones, freezing, saved_models

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def vgg16():
    return backbones.backbone("VGG16", (32, 32, 3), None)


@pytest.fixture
def no_weights_on_disk(monkeypatch, tmp_path):
    """Neither the user's data nor Keras' cache hold weights."""
    monkeypatch.setenv("TFPROJECT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))
    return tmp_path


def test_a_network_with_its_own_preprocessing_gives_what_keras_gives(vgg16):
    # One of each kind: BGR and means; from -1 to 1; inside already.
    for name, module in (("VGG16", "vgg16"), ("MobileNetV2", "mobilenet_v2"), ("MobileNetV3Small", "mobilenet_v3")):
        found = vgg16 if name == "VGG16" else backbones.backbone(name, (32, 32, 3), None)
        expected = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 32, 3))
        expected.set_weights(found.get_weights())
        expected = expected(getattr(keras.applications, module).preprocess_input(PIXELS.copy()))
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(found(PIXELS) / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in backbones.NAMES if not name.endswith(tuple("1234567LM"))])
def test_preprocessing_is_that_of_every_network(name):
    image = keras.Input((32, 32, 3))
    layers = keras.Model([image], backbones._preprocessed(image, name))
    home = getattr(keras.applications, name).__module__.rpartition(".")[2]
    expected = getattr(keras.applications, home).preprocess_input(PIXELS.copy())
    np.testing.assert_allclose(layers(PIXELS), expected, atol=1e-4)


def test_it_is_flat_and_the_same_however_often_it_is_built(vgg16):
    assert not any(isinstance(layer, keras.Model) for layer in vgg16.layers)
    assert "block4_pool" in freezing.cut_layers(vgg16)
    small = [backbones.backbone("MobileNetV3Small", (32, 32, 3), None).to_json() for _ in range(2)]
    assert small[0] == small[1]


def test_a_classifier_is_saved_with_nothing_of_ours(vgg16, tmp_path):
    classifier = backbones.classifier(vgg16, 4, head=(8, 6), dropout=0.5)
    assert [layer.name for layer in classifier.layers[-7:]] == [
        "block5_pool", "head_pool", "head_dropout1", "head_dense1", "head_dropout2", "head_dense2", "head_dropout3",
        "classes",
    ][1:]  # fmt: skip
    path = saved_models.save(classifier, tmp_path / "model.keras", list("abcd"))
    again = saved_models.load(path).model
    np.testing.assert_array_equal(again(PIXELS), classifier(PIXELS))
    np.testing.assert_allclose(classifier(PIXELS).numpy().sum(axis=1), 1, atol=1e-5)
    assert classifier.get_layer("block1_conv1") is vgg16.get_layer("block1_conv1")


@pytest.mark.parametrize("pooling, width", [("average", 8), ("max", 8), ("flatten", 8 * 4 * 4)])
def test_what_the_head_sees(pooling, width):
    image = keras.Input((4, 4, 3), name="image")
    features = keras.layers.Conv2D(8, 1, name="conv")(image)
    classifier = backbones.classifier(keras.Model([image], features, name="base"), 3, pooling=pooling)
    assert classifier.get_layer("classes").kernel.shape == (width, 3)
    flat = keras.Model([image], keras.layers.Flatten()(features), name="base")
    assert backbones.classifier(flat, 3, pooling=pooling).get_layer("classes").kernel.shape == (128, 3)
    with pytest.raises(UserError, match="no pooling 'mean'; choose from average"):
        backbones.classifier(flat, 3, pooling="mean")


def test_weights_come_from_a_file(vgg16, tmp_path, monkeypatch):
    path = tmp_path / "weights" / "vgg16_imagenet_notop.weights.h5"
    path.parent.mkdir()
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(48, 48, 3))
    plain.set_weights(vgg16.get_weights())
    plain.save_weights(path)
    monkeypatch.setenv("TFPROJECT_DATA", str(tmp_path))
    image_shape = (32, 64, 3)
    for weights in (path, str(path), "imagenet"):
        found = backbones.backbone("VGG16", image_shape, weights)
        for weight, expected in zip(found.get_weights(), vgg16.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
    assert found.input_shape == (None, *image_shape)
    content = path.read_bytes()
    nan = tmp_path / "nan.weights.h5"
    plain.get_layer("block3_conv1").bias.assign(np.full(256, np.nan))
    plain.save_weights(nan)
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes(content[: len(content) // 2])
    text = tmp_path / "text.weights.h5"
    text.write_text("<html>not found</html>")
    for name, weights, words in [
        ("VGG16", cut, "or is damaged; give another file"),
        ("VGG16", text, "or is damaged; give another file"),
        ("VGG16", nan, "no finite numbers"),
        ("VGG19", path, "no weights of VGG19"),
        ("VGG16", tmp_path / "none.weights.h5", "There is no weights file"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            backbones.backbone(name, (32, 32, 3), weights)
        assert "\n" not in str(caught.value)


def refusing():
    """A port where nobody answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("network", ["refuses", "hangs"])
def test_without_weights_on_disk_and_without_network_there_is_one_sentence_soon(
    network, no_weights_on_disk, monkeypatch
):
    monkeypatch.setattr(backbones, "SECONDS", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1] if network == "hangs" else refusing()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        start = time.monotonic()
        with pytest.raises(UserError) as caught:
            backbones.backbone("VGG16", (32, 32, 3))
        assert time.monotonic() - start < 10
    message = str(caught.value)
    assert "ImageNet weights are not on this disk and could not be downloaded" in message and "\n" not in message
    assert str(no_weights_on_disk / "data" / "weights" / "vgg16_imagenet_notop.weights.h5") in message


def test_a_host_whose_name_nobody_finds_is_given_up(monkeypatch):
    monkeypatch.setattr(backbones, "SECONDS", 0.2)
    over = threading.Event()

    def wait_for_a_name(*_):
        over.wait(20)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", wait_for_a_name)
    start = time.monotonic()
    with pytest.raises(OSError, match="no connection"):
        backbones._reach("weights.example")
    over.set()
    assert time.monotonic() - start < 5


def test_what_does_not_exist_is_told():
    with pytest.raises(UserError, match="no network 'VGG61'; choose one such as VGG"):
        backbones.backbone("VGG61", (32, 32, 3))
    with pytest.raises(UserError, match=r"VGG16 does not take images of \(16, 16, 3\) \(.*32"):
        backbones.backbone("VGG16", (16, 16, 3), None)


def test_a_trained_classifier_without_its_output_layer_gives_what_went_into_it():
    model = models.custom_cnn((32, 32, 3), 10)
    features = backbones.backbone_from(model)(PIXELS)
    classes = model.get_layer("classes")
    logits = features @ classes.kernel.numpy() + classes.bias.numpy()
    np.testing.assert_allclose(keras.ops.softmax(logits), model(PIXELS), atol=1e-6)

    larger = backbones.backbone_from(model, drop=4, image_shape=(48, 40, 3))
    assert larger.output_shape == (None, 6, 5, 128) and larger.layers[-1].name == "block3_pool"
    same = keras.Model([model.input], model.get_layer("block3_pool").output)
    np.testing.assert_allclose(
        larger(np.pad(PIXELS, ((0, 0), (0, 16), (0, 8), (0, 0))))[:, :1, :1], same(PIXELS)[:, :1, :1], atol=1e-5
    )
    freezing.freeze_all(larger)
    assert model.trainable_variables  # it was copied

    with pytest.raises(UserError, match=r"dense_relu takes images of \(32, 32, 3\), not of \(48, 40, 3\)"):
        backbones.backbone_from(model, image_shape=(48, 40, 3))
    with pytest.raises(UserError, match="cannot be cut 0 layers before its end"):
        backbones.backbone_from(model, drop=0)
