"""Models saved and loaded, and image files on disk predicted with them."""

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from tfproject import evaluation
from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.evaluation import find_images, predict_files, prediction
from tfproject.models import saved_models

CLASSES = ("river", "forest, mixed", "sea")


def tiny_model(outputs=3):
    keras.utils.set_random_seed(3)
    image = keras.Input((10, 12, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(8, 3, name="stem")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.LeakyReLU()(x))
    x = keras.layers.Flatten()(x)
    output = keras.layers.Dense(outputs, activation="softmax", kernel_initializer="he_normal")(x)
    return keras.Model(image, output, name="tiny")


@pytest.fixture
def saved(tmp_path):
    return saved_models.save(tiny_model(), tmp_path / "tiny.keras", CLASSES, data="made up")


@pytest.fixture
def tiles(tmp_path):
    """27 PNG files and the split that they hold."""
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (27, 10, 12, 3), dtype=np.uint8)
    folder = tmp_path / "tiles"
    for i, image in enumerate(images):
        path = folder / f"{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    order = sorted(range(27), key=lambda i: (i % 3, i))
    return folder, Split(images[order], np.array(order) % 3, tuple(f"{i % 3}/{i:02d}.png" for i in order))


def one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and ". " not in text and "\n" not in text


def write_card(path, **content):
    path.with_suffix(".json").write_text(json.dumps({"class_names": list(CLASSES), "image_size": [10, 12], **content}))


class TestSavedModels:
    def test_round_trip(self, tmp_path):
        model = tiny_model()
        model.compile("adam", "sparse_categorical_crossentropy")
        images = np.random.default_rng(0).uniform(0, 255, (4, 10, 12, 3)).astype("float32")
        model.fit(images, np.array([0, 1, 2, 0]), verbose=0)
        path = saved_models.save(model, tmp_path / "m.keras", CLASSES, data="eurosat", accuracy=0.5)
        loaded = saved_models.load(path)
        np.testing.assert_array_equal(loaded.model(images), model(images))
        assert loaded.class_names == CLASSES
        assert loaded.image_size == (10, 12)
        assert loaded.card["data"] == "eurosat" and loaded.card["accuracy"] == 0.5
        assert sorted(os.listdir(tmp_path)) == ["m.json", "m.keras"]
        assert model.optimizer is not None  # the model that was saved can be trained on

    def test_a_model_within_the_model(self, tmp_path):
        image = keras.Input((10, 12, 3))
        inner = tiny_model(outputs=5)
        model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(inner(image)))
        loaded = saved_models.load(saved_models.save(model, tmp_path / "nested.keras", CLASSES))
        images = np.random.default_rng(0).uniform(0, 255, (4, 10, 12, 3)).astype("float32")
        np.testing.assert_array_equal(loaded.model(images), model(images))

    def test_in_another_precision_all_but_the_output_computes_in_it(self, tmp_path):
        inner = tiny_model(outputs=5)
        for weight in inner.weights:
            if "variance" in weight.path:
                weight.assign(np.random.default_rng(1).uniform(0.5, 2, weight.shape))
        image = keras.Input((10, 12, 3))
        normal = keras.layers.Normalization(mean=[90.0] * 3, variance=[4000.0] * 3)(image)
        output = keras.layers.Dense(3, activation="softmax")(inner(normal))
        path = saved_models.save(keras.Model(image, output), tmp_path / "m.keras", CLASSES)
        plain, brain = saved_models.load(path), saved_models.load(path, "mixed_bfloat16")
        assert (plain.precision, brain.precision) == (None, "mixed_bfloat16")
        policies = {layer.name: layer.dtype_policy.name for layer in brain.model._flatten_layers(include_self=False)}
        assert policies.pop(brain.model.layers[-1].name) == "float32"
        assert policies["stem"] == "mixed_bfloat16" and set(policies.values()) <= {"mixed_bfloat16", "float32"}
        assert {weight.dtype for weight in brain.model.weights if "count" not in weight.path} == {"float32"}
        images = np.random.default_rng(0).uniform(0, 255, (4, 10, 12, 3)).astype("float32")
        expected, found = plain.model.predict(images, verbose=0), brain.model.predict(images, verbose=0)
        assert found.dtype == np.float32 and 0 < np.abs(found - expected).max() < 0.05
        again = saved_models.load(saved_models.save(brain.model, tmp_path / "brain.keras", CLASSES), "float32")
        np.testing.assert_array_equal(again.model.predict(images, verbose=0), expected)

    def test_a_description_that_fills_the_memory_is_refused(self, saved, tmp_path):
        with zipfile.ZipFile(saved) as archive:
            weights = archive.read("model.weights.h5")
        with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", b" " * (saved_models.MAX_CONFIG_BYTES + 1))
            archive.writestr("model.weights.h5", weights)
        with pytest.raises(UserError, match="damaged") as error:
            saved_models.load(tmp_path / "bomb.keras")
        assert one_sentence(error)

    def test_a_precision_that_there_is_not_is_one_sentence(self, saved):
        with pytest.raises(UserError, match="cannot compute in float7 here") as error:
            saved_models.load(saved, "float7")
        assert one_sentence(error)

    def test_optimiser_is_left_out(self, tmp_path):
        model = tiny_model()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(np.zeros((2, 10, 12, 3), "float32"), np.array([0, 1]), verbose=0)
        model.save(tmp_path / "whole.keras")
        saved_models.save(model, tmp_path / "plain.keras", CLASSES)
        with zipfile.ZipFile(tmp_path / "plain.keras") as archive:
            assert not json.loads(archive.read("config.json")).get("compile_config")
        assert (tmp_path / "plain.keras").stat().st_size < 0.7 * (tmp_path / "whole.keras").stat().st_size

    def test_keras_alone_loads_it(self, saved):
        program = f"import keras; m = keras.models.load_model({str(saved)!r}); print(m.output_shape)"
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=True)
        assert "(None, 3)" in result.stdout

    def test_loading_says_nothing(self, saved):
        program = f"from tfproject.models import saved_models; saved_models.load({str(saved)!r})"
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert result.stdout == result.stderr == ""

    @pytest.mark.parametrize("name", ["absent.keras", "model.h5", "text.keras", "truncated.keras", "flipped.keras"])
    def test_wrong_files(self, tmp_path, saved, name):
        path = tmp_path / name
        content = bytearray(saved.read_bytes())
        if name == "model.h5":
            path.write_bytes(content)
        elif name == "text.keras":
            path.write_text("this is no model")
        elif name == "truncated.keras":
            path.write_bytes(content[: len(content) // 2])
        elif name == "flipped.keras":
            content[len(content) // 2] ^= 255
            path.write_bytes(content)
        write_card(path)
        with pytest.raises(UserError, match=name) as error:
            saved_models.load(path)
        assert one_sentence(error)

    def test_weights_that_do_not_fit_the_architecture(self, tmp_path, saved):
        other = saved_models.save(tiny_model(outputs=4), tmp_path / "other.keras", ["a", "b", "c", "d"])
        mixed = tmp_path / "mixed.keras"
        with zipfile.ZipFile(mixed, "w") as archive, zipfile.ZipFile(saved) as ours, zipfile.ZipFile(other) as theirs:
            for source, name in ((ours, "metadata.json"), (ours, "config.json"), (theirs, "model.weights.h5")):
                archive.writestr(name, source.read(name))
        write_card(mixed)
        with pytest.raises(UserError, match="Keras cannot load") as error:
            saved_models.load(mixed)
        assert one_sentence(error)

    def test_programs_in_models_are_refused(self, tmp_path):
        class Ours(keras.layers.Layer):
            def call(self, x):
                return x

        def doubled(x):
            return 2 * x

        foreign = {
            "Lambda": keras.layers.Lambda(lambda x: x),
            "Ours": Ours(),
            "doubled": keras.layers.Activation(doubled),
        }
        for what, layer in foreign.items():
            image = keras.Input((10, 12, 3))
            inner = keras.Model(image, layer(image))  # hidden in a model within the model
            output = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(inner(image)))
            model = keras.Model(image, output)
            path = tmp_path / f"{what}.keras"
            model.save(path)
            write_card(path)
            for refused in (lambda: saved_models.load(path), lambda: saved_models.save(model, path, CLASSES)):
                with pytest.raises(UserError, match=what) as error:
                    refused()
                assert one_sentence(error)

    @pytest.mark.parametrize(
        "content",
        [None, "{", "[]", '{"class_names": ["a", "b", "c"]}', '{"class_names": "abc", "image_size": [10, 12]}',
         '{"class_names": ["a", "b", "c"], "image_size": "10x12"}'],
    )  # fmt: skip
    def test_missing_or_damaged_sidecar(self, saved, content):
        sidecar = saved.with_suffix(".json")
        sidecar.unlink()
        if content is not None:
            sidecar.write_text(content)
        with pytest.raises(UserError, match="tiny.json") as error:
            saved_models.load(saved)
        assert one_sentence(error)

    def test_sidecar_of_another_model(self, saved):
        write_card(saved, class_names=["a", "b"])
        with pytest.raises(UserError, match="3 outputs .* 2 classes"):
            saved_models.load(saved)
        write_card(saved, image_size=[64, 64])
        with pytest.raises(UserError, match="10x12 .* 64x64"):
            saved_models.load(saved)

    def test_input_that_is_not_rgb(self, tmp_path):
        image = keras.Input((10, 12, 1))
        model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(image)))
        path = tmp_path / "grey.keras"
        model.save(path)
        write_card(path)
        with pytest.raises(UserError, match="RGB") as error:
            saved_models.load(path)
        assert one_sentence(error)

    def test_saving_where_it_cannot_be(self, tmp_path):
        with pytest.raises(UserError, match="cannot be written"):
            saved_models.save(tiny_model(), tmp_path / "absent" / "m.keras", CLASSES)
        with pytest.raises(UserError, match="m.h5"):
            saved_models.save(tiny_model(), tmp_path / "m.h5", CLASSES)
        with pytest.raises(UserError, match="3 outputs for 1"):
            saved_models.save(tiny_model(), tmp_path / "m.keras", ["one"])
        assert not any(tmp_path.iterdir())


class TestFindImages:
    def test_folders_files_and_what_is_hidden(self, tmp_path):
        for name in ("b/2.JPG", "b/1.png", "a/x/3.tif", "b/notes.txt", "b/.4.png", ".hidden/5.png", "odd.dat"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = find_images([tmp_path / "b" / "2.JPG", tmp_path, str(tmp_path / "odd.dat")])
        assert [str(path.relative_to(tmp_path)) for path in found] == ["b/2.JPG", "a/x/3.tif", "b/1.png", "odd.dat"]
        assert find_images([tmp_path / "b", tmp_path / "a" / ".." / "b"]) == find_images([tmp_path / "b"])
        with pytest.warns(UserWarning, match=r"what their names end with \(1, such as notes.txt\)"):
            assert find_images(str(tmp_path / "b")) == find_images(tmp_path / "b")  # one path, not its letters

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UserError, match="absent") as error:
            find_images([tmp_path / "absent"])
        assert one_sentence(error)
        with pytest.raises(UserError, match="no image") as error:
            find_images([tmp_path])
        assert one_sentence(error)


class TestPredictFiles:
    @pytest.mark.parametrize("batch_size", [1, 4, 128])
    def test_agrees_with_evaluate(self, saved, tiles, batch_size):
        folder, split = tiles
        model = saved_models.load(saved)
        predictions = predict_files(model, find_images([folder]), batch_size=batch_size)
        assert predictions.names == tuple(str(folder / name) for name in split.names)
        np.testing.assert_allclose(predictions.probabilities, model.model(split.images.astype("float32")), atol=1e-5)
        result = evaluation.evaluate(model.model, split, CLASSES, batch_size=16)
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (split.labels, [CLASSES.index(name) for name in predictions.classes]), 1)
        assert confusion.tolist() == result.confusion
        assert len(set(predictions.classes)) > 1

    def test_other_sizes_are_resized(self, saved, tmp_path):
        Image.new("RGB", (300, 200), (10, 200, 30)).save(tmp_path / "large.png")
        Image.new("RGB", (12, 10), (10, 200, 30)).save(tmp_path / "small.png")
        predictions = predict_files(saved_models.load(saved), [tmp_path / "large.png", tmp_path / "small.png"])
        np.testing.assert_allclose(*predictions.probabilities, atol=1e-6)

    def test_bad_files_are_listed_and_the_others_predicted(self, saved, tiles):
        folder, _ = tiles
        model = saved_models.load(saved)
        paths = find_images([folder])
        whole = predict_files(model, paths)
        (folder / "0/00.png").write_text("<html>no image</html>")
        (folder / "1/04.png").write_bytes(b"")
        content = (folder / "2/26.png").read_bytes()
        (folder / "2/26.png").write_bytes(content[: len(content) // 2])
        predictions = predict_files(model, [*paths, folder / "gone.png"], batch_size=4)
        bad = [str(folder / name) for name in ("0/00.png", "1/04.png", "2/26.png", "gone.png")]
        assert [image.name for image in predictions.bad] == bad
        assert all(image.reason for image in predictions.bad)
        kept = [i for i, name in enumerate(whole.names) if name not in bad]
        assert predictions.names == tuple(whole.names[i] for i in kept)
        np.testing.assert_allclose(predictions.probabilities, whole.probabilities[kept], atol=1e-6)
        assert "4 of 28 files could not be read:" in predictions.to_text()

    def test_nothing_but_bad_files(self, saved, tmp_path):
        (tmp_path / "x.jpg").write_text("text")
        predictions = predict_files(saved_models.load(saved), [tmp_path / "x.jpg"])
        assert len(predictions) == 0 and predictions.probabilities.shape == (0, 3)
        predictions.to_csv(tmp_path / "out.csv")
        assert predictions.to_text().startswith("1 of 1 files could not be read:")
        with open(tmp_path / "out.csv") as file:
            assert len(list(csv.reader(file))) == 1

    def test_eight_views_need_square_images(self, saved, tiles):
        with pytest.raises(UserError, match="10x12"):
            predict_files(saved_models.load(saved), find_images([tiles[0]]), views=8)


class TestOutput:
    @pytest.fixture
    def predictions(self, saved, tiles, tmp_path):
        folder, _ = tiles
        names = ["a, b.png", 'say "x"\nand y.png', os.fsdecode(b"latin-\xe9.png"), "plain.png"]
        for i, name in enumerate(names):
            shutil.copy(folder / "0" / f"{3 * i:02d}.png", tmp_path / name)
        (tmp_path / "bad.png").write_text("text")
        return predict_files(saved_models.load(saved), [tmp_path / name for name in (*names, "bad.png")])

    def test_csv(self, predictions, tmp_path):
        predictions.to_csv(tmp_path / "out.csv")
        with open(tmp_path / "out.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        assert header == ["file", "class", "probability", "abstains", *CLASSES]
        assert [row[0] for row in rows] == list(predictions.names)
        assert [row[1] for row in rows] == predictions.classes
        np.testing.assert_allclose([float(row[2]) for row in rows], predictions.confidences, atol=1e-6)
        assert {row[3] for row in rows} == {"false"}
        values = np.array([row[4:] for row in rows], dtype=float)
        np.testing.assert_allclose(values, predictions.probabilities, atol=1e-6)

    def test_json(self, predictions, tmp_path):
        predictions.to_json(tmp_path / "out.json")
        content = json.loads((tmp_path / "out.json").read_text())
        assert [row["file"] for row in content["predictions"]] == list(predictions.names)
        assert [row["class"] for row in content["predictions"]] == predictions.classes
        for row, expected in zip(content["predictions"], predictions.probabilities):
            assert list(row["probabilities"]) == list(CLASSES)
            np.testing.assert_allclose(list(row["probabilities"].values()), expected, atol=1e-6)
        assert [row["file"] for row in content["bad"]] == [str(tmp_path / "bad.png")]

    def test_text_is_a_line_per_file_in_columns(self, predictions):
        text = predictions.to_text()
        text.encode()  # no half characters that a terminal cannot show
        table, bad = text.split("\n\n")
        assert len({len(line) for line in table.splitlines()}) == 1
        assert len(table.splitlines()) == 1 + len(predictions)
        assert "bad.png: " in bad

    def test_files_that_cannot_be_written(self, predictions, tmp_path):
        for write in (predictions.to_csv, predictions.to_json):
            with pytest.raises(UserError, match="cannot be written") as error:
                write(tmp_path / "absent" / "out")
            assert one_sentence(error)


class TestAbstaining:
    def test_where_the_most_probable_class_is_below_the_threshold(self, saved, tiles, tmp_path):
        model, paths = saved_models.load(saved), find_images([tiles[0]])
        confidences = np.sort(predict_files(model, paths).confidences)
        middle = float((confidences[12] + confidences[13]) / 2)
        predictions = predict_files(model, paths, abstain_below=middle)
        assert predictions.abstains.sum() == 13
        np.testing.assert_array_equal(predictions.abstains, predictions.confidences < middle)
        predictions.to_csv(tmp_path / "out.csv")
        with open(tmp_path / "out.csv") as file:
            found = [row["abstains"] == "true" for row in csv.DictReader(file)]
        assert found == predictions.abstains.tolist()
        predictions.to_json(tmp_path / "out.json")
        content = json.loads((tmp_path / "out.json").read_text())
        assert content["abstain_below"] == middle
        assert [row["abstains"] for row in content["predictions"]] == found
        header, *rows = predictions.to_text().splitlines()
        assert header.split() == ["file", "class", "probability", "abstains"]
        assert [row.split()[-1] == "yes" for row in rows] == found

    def test_the_card_s_threshold_unless_one_is_given(self, saved, tiles):
        paths = find_images([tiles[0]])[:2]
        assert predict_files(saved_models.load(saved), paths).abstain_below is None
        write_card(saved, abstain_below=0.9)
        model = saved_models.load(saved)
        assert predict_files(model, paths).abstain_below == 0.9
        assert not predict_files(model, paths, abstain_below=0).abstains.any()
        with pytest.raises(UserError, match="1.5") as error:
            predict_files(model, paths, abstain_below=1.5)
        assert one_sentence(error)
        write_card(saved, abstain_below="high")
        with pytest.raises(UserError, match="card says 'high'"):
            predict_files(saved_models.load(saved), paths)


@pytest.mark.parametrize("output", [lambda x: x * 8, lambda x: x / 0, lambda x: x - 0.5])
def test_what_are_no_probabilities_is_refused(output):
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model([image], keras.layers.Lambda(output)(keras.layers.Softmax()(x)))
    with pytest.raises(UserError, match="are no probabilities"):
        prediction.predictor(model, (8, 8), 4)(np.ones((3, 8, 8, 3), np.float32))


def test_an_image_as_sure_as_the_threshold_is_answered(saved, tiles):
    model, paths = saved_models.load(saved), find_images([tiles[0]])
    confidences = predict_files(model, paths).confidences
    at = float(np.sort(confidences)[12])  # as `tfproject.evaluation.calibration.choose_threshold` chooses one
    assert predict_files(model, paths, abstain_below=at).abstains.sum() == (confidences < at).sum() <= 12


def test_a_network_is_traced_once_and_its_weights_are_read_each_time(saved, tiles):
    model, paths = saved_models.load(saved), find_images([tiles[0]])
    first = predict_files(model, paths, batch_size=8).probabilities
    traced = prediction._traced(model.model, (8, *model.image_size, 3))
    np.testing.assert_array_equal(predict_files(model, paths, batch_size=8).probabilities, first)
    assert traced.experimental_get_tracing_count() == 1
    model.model.set_weights([0 * weight for weight in model.model.get_weights()])
    changed = predict_files(model, paths, batch_size=8).probabilities
    np.testing.assert_allclose(changed, 1 / changed.shape[1], atol=1e-6)
    assert traced.experimental_get_tracing_count() == 1


def test_views_are_the_image_moved_by_a_pixel_and_mirrored():
    images = np.random.default_rng(0).uniform(size=(2, 5, 6, 3)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [images, padded[:, :5, :6], padded[:, 2:, 2:]]
    for count in (1, 2, 6):
        expected = [view[:, :, ::step] for view in moved[: max(1, count // 2)] for step in (1, -1)[:count]]
        found = list(prediction._views(images, count))
        assert len(found) == len(expected) == count
        for view, other in zip(found, expected):
            np.testing.assert_array_equal(view, other)


class TestExplaining:
    @pytest.mark.parametrize("method", ["smoothgrad", "layercam"])
    def test_a_picture_for_each_image_and_none_overwritten(self, saved, tiles, tmp_path, monkeypatch, method):
        from tfproject.interpret.attribution import attribute
        from tfproject.tools import heat_maps

        monkeypatch.setattr(heat_maps, "METHOD", method)
        folder, split = tiles
        (folder / "more").mkdir()
        shutil.copy(folder / "1/01.png", folder / "more/00.png")  # the name of another folder's image
        model, paths = saved_models.load(saved), find_images([folder])
        predictions = predict_files(model, paths, abstain_below=0.5)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/1-01.png").write_text("mine")
        written = heat_maps.explain_files(model, predictions, tmp_path / "out")
        assert len(set(written)) == 28 and all(path.is_file() for path in written)
        assert (tmp_path / "out/1-01.png").read_text() == "mine"
        names = dict(zip(predictions.names, (path.name for path in written)))
        assert names[str(folder / "0/00.png")] == "0-00.png" and names[str(folder / "more/00.png")] == "more-00.png"
        assert names[str(folder / "1/01.png")] == "1-01-2.png"
        tiles_of_0 = [i for i, name in enumerate(predictions.names) if name.startswith(str(folder / "0/"))]
        chosen = predictions.probabilities.argmax(axis=1)
        pixels = np.stack([np.asarray(Image.open(predictions.names[i])) for i in tiles_of_0])
        heats = attribute(model.model, pixels, chosen[tiles_of_0], method)[method]
        which = next(i for i, heat in enumerate(heats) if heat.any())
        row, heat = tiles_of_0[which], heats[which]
        sheet = np.asarray(Image.open(written[row])).astype(float)[heat_maps.CAPTION :]
        height, width = 267, 320  # 10x12 pixels enlarged
        assert sheet.shape == (height, 2 * width + heat_maps.GAP, 3)
        image = pixels[which]
        shown = Image.fromarray(sheet[:, :width].astype(np.uint8)).resize((12, 10), Image.Resampling.BOX)
        assert np.corrcoef(np.asarray(shown).ravel(), image.ravel())[0, 1] > 0.9
        # What lies over the image is the heat map: taken off again, it grows with the map of the class itself.
        over = (sheet[:, -width:] - (1 - heat_maps.OPACITY) * sheet[:, :width]) / heat_maps.OPACITY
        light = Image.fromarray(over.sum(axis=2).astype(np.float32)).resize((12, 10), Image.Resampling.BOX)
        assert np.corrcoef(np.asarray(light).ravel(), heat.ravel())[0, 1] > 0.8

    def test_of_a_network_without_convolutions_there_are_none(self, tiles, tmp_path):
        from tfproject.tools.heat_maps import explain_files

        image = keras.Input((10, 12, 3))
        x = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(image))
        model = saved_models.SavedModel(keras.Model([image], x), ("a", "b"), (10, 12), tmp_path / "dense.keras", {})
        predictions = predict_files(model, find_images([tiles[0]])[:2])
        with pytest.raises(UserError, match="dense.keras: it has no convolution .* leave out `--explain`") as error:
            explain_files(model, predictions, tmp_path / "maps")
        assert one_sentence(error)
        assert not (tmp_path / "maps").exists()

    def test_an_image_that_is_gone_by_then_has_none(self, saved, tiles, tmp_path):
        from tfproject.tools.heat_maps import explain_files

        model, paths = saved_models.load(saved), find_images([tiles[0]])[:3]
        predictions = predict_files(model, paths)
        paths[1].unlink()
        written = explain_files(model, predictions, tmp_path / "new/folder")
        assert [path is None for path in written] == [False, True, False]
