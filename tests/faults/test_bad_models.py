"""Model files that strangers made: no program in them runs, no file of ours is read, and each is one sentence."""

import io
import json
import os
import random
import resource
import zipfile

import keras
import numpy as np
import processes
import pytest
import toy

from tfproject import cli
from tfproject.errors import UserError
from tfproject.models import saved_models

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "whole.keras"
    return saved_models.save(toy.network((16, 16, 3), 3), path, CLASSES)


def copy(whole, path, config=None, weights=None, card=None, **members):
    """The whole model with another configuration (a function that changes it), weights, card or more members."""
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json" and config:
                content = json.loads(content)
                config(content)
                content = json.dumps(content)
            if name == "model.weights.h5" and weights is not None:
                content = weights
            changed.writestr(name, content)
        for name, content in members.items():
            changed.writestr(name.replace("__", "/"), content)
    about = {"class_names": list(CLASSES), "image_size": [16, 16]}
    path.with_suffix(".json").write_text(json.dumps(about | (card or {})))
    return path


def refused(tally, path):
    try:
        saved_models.load(path)
        said = ""
    except UserError as error:
        said = str(error)
    tally.assert_right(said.endswith(".") and "\n" not in said, f"{path}: {said or 'it was loaded'}")
    return said


def layer(config, name):
    return next(each for each in config["config"]["layers"] if each["name"] == name)


def put(class_name, module, inner, registered=None):
    """A change of the configuration that puts something else where the dropout layer is."""

    def change(config):
        place = layer(config, "dropout")
        place.update(class_name=class_name, module=module, registered_name=registered)
        place["config"] = {"name": "dropout", **inner}

    return change


def activation(value):
    def change(config):
        layer(config, "classes")["config"]["activation"] = value

    return change


def call(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


PROGRAM = {"class_name": "__lambda__", "config": {"code": "4wEAAAAAAAAAAAAAAAEA", "defaults": None, "closure": None}}
CRAFTED = {
    "a Lambda layer": put("Lambda", "keras.layers", {"function": PROGRAM}),
    "a Lambda layer by another module": put("Lambda", "keras.src.layers.core.lambda_layer", {"function": PROGRAM}),
    "a lambda as activation": activation(PROGRAM),
    "a system call": activation(call("os", "system")),
    "a builtin": activation(call("builtins", "eval")),
    "a function of keras that downloads": activation(call("keras.utils", "get_file")),
    "a function of keras that unpickles": activation(call("keras.src.saving.saving_lib", "load_model")),
    "a function of keras that ends safe mode": activation(call("keras.config", "enable_unsafe_deserialization")),
    "a class of another package": put("Popen", "subprocess", {"args": "id"}),
    "a custom layer": put("Mine", None, {}, "Custom>Mine"),
    "a layer that reads a file": put("StringLookup", "keras.layers", {"vocabulary": "/etc/passwd"}),
    "a text layer that reads a file": put("TextVectorization", "keras.layers", {"vocabulary": "/etc/passwd"}),
    "a layer that reads an address": put("StringLookup", "keras.layers", {"vocabulary": "http://127.0.0.1:9/x"}),
    "a saved model from elsewhere": put("TFSMLayer", "keras.layers", {"filepath": "/tmp/elsewhere"}),
    "a pickled module": put("TorchModuleWrapper", "keras.layers", {"module": "gASVKA=="}),
    "a layer wrapped in a layer": put(
        "TimeDistributed", "keras.layers",
        {"layer": {"class_name": "Lambda", "module": "keras.layers", "config": {"function": PROGRAM}}},
    ),
    "no layers": lambda config: config["config"].update(layers=[]),
    "no config": lambda config: config.clear(),
    "a layer of a size beyond memory": lambda config: layer(config, "classes")["config"].update(units=2**40),
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_configurations_are_refused(whole, tally, tmp_path, name, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", lambda *_: ran.append("system"))
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: ran.append("get_file"))
    refused(tally, copy(whole, tmp_path / "crafted.keras", CRAFTED[name]))
    assert not ran and keras.src.saving.serialization_lib.in_safe_mode() in (None, True)


def test_weights_that_lead_elsewhere_are_refused(whole, tally, tmp_path):
    import h5py

    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4096, dtype=np.float32).tobytes())
    with zipfile.ZipFile(whole) as archive:
        original = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(original)) as file:
        found = []
        file.visititems(lambda name, item: found.append((name, item.shape)) if isinstance(item, h5py.Dataset) else None)
    name, shape = next(each for each in found if len(each[1]) == 2)
    for kind in ("external link", "external storage", "soft link", "huge"):
        weights = io.BytesIO(original)
        with h5py.File(weights, "r+") as file:
            del file[name]
            if kind == "external link":
                file[name] = h5py.ExternalLink(str(secret), "/x")
            elif kind == "soft link":
                file[name] = h5py.SoftLink("/nowhere")
            elif kind == "external storage":
                file.create_dataset(name, shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
            else:
                file.create_dataset(name, (2**20, 2**20), "f4", chunks=(1, 1024))
        refused(tally, copy(whole, tmp_path / f"{kind}.keras".replace(" ", "-"), weights=weights.getvalue()))


def bomb(directory, path):
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**29, taken + 2**29))
    saved_models.load(path)


def test_a_file_that_unpacks_to_gigabytes_is_refused_in_little_memory(whole, child, tally, tmp_path):
    path = copy(whole, tmp_path / "bomb.keras")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("assets/x", "w", force_zip64=True) as file:
            for _ in range(1024):
                file.write(bytes(2**20))
    process = child(bomb, tmp_path / "work", str(path))
    tally.assert_right(process.end() == 2 and processes.one_sentence(process.said), process.said[-2000:])


def test_truncated_and_flipped_files_are_refused_or_the_same(whole, tally, tmp_path):
    chosen, content = random.Random(3), whole.read_bytes()
    image = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype("float32")
    expected = saved_models.load(whole).model(image, training=False).numpy()
    path = tmp_path / "spoilt.keras"
    path.with_suffix(".json").write_text(whole.with_suffix(".json").read_text())
    for number in range(60):
        spoilt = bytearray(content)
        at = chosen.randrange(len(content))
        if number % 2:
            spoilt[at] ^= 1 << chosen.randrange(8)
        path.write_bytes(spoilt if number % 2 else content[:at])
        try:
            same = (saved_models.load(path).model(image, training=False).numpy() == expected).all()
            tally.assert_right(bool(same), f"byte {at} of {len(content)}")
        except UserError as error:
            tally.assert_right("\n" not in str(error), str(error))


@pytest.mark.parametrize(
    "card", [{"class_names": ["one", "two"]}, {"image_size": [32, 32]}, {"class_names": "rgb"}, {"image_size": None}]
)
def test_a_card_of_another_model_is_refused(whole, tally, tmp_path, card):
    refused(tally, copy(whole, tmp_path / "other.keras", card=card))


def test_other_classes_or_another_size_than_the_data(whole, tally, tmp_path, capsys):
    from PIL import Image

    for label, class_name in enumerate(("cat", "dog", "fox")):
        (tmp_path / "set" / class_name).mkdir(parents=True)
        for number in range(9):
            pixels = np.random.default_rng((label, number)).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / class_name / f"{class_name}{number}.png")
    for command in ("evaluate", "interpret"):
        code = cli.main([command, str(whole), "--data", str(tmp_path / "set"), "--split-method", "holdout"])
        said = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
        tally.assert_right(code == 2 and len(said) == 1 and "knows the classes red, green, blue" in said[0], said)
    grey = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    flat = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    for model in (grey, flat):
        path = tmp_path / "shape.keras"
        model.save(path)
        path.with_suffix(".json").write_text(whole.with_suffix(".json").read_text())
        assert "RGB images" in refused(tally, path)
    for name in ("none.keras", "set"):
        refused(tally, tmp_path / name)
