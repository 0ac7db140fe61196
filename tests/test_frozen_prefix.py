import dataclasses
import json
import resource

import keras
import numpy as np
import pytest
import toy

from tfproject import training
from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.models import freezing
from tfproject.training import Recipe, acceleration, checkpoints, feature_store, frozen_prefix

CUT = "conv1_relu"
RECIPE = Recipe(
    epochs=3, batch_size=40, optimizer="sgd", learning_rate=0.05, schedule="constant", precision="float32",
    jit_compile=False, seed=3, frozen_until=CUT,
)  # fmt: skip
VIEWED = dataclasses.replace(RECIPE, augment=("alternating_flip", "shift", "colour"), views=3)


def network(image_shape, class_count):
    """The toy network with statistics of BatchNorm as of a trained one, dropout behind the cut."""
    model = toy.network(image_shape, class_count)
    random = np.random.default_rng(0)
    for name in ("conv1_norm", "conv2_norm"):
        layer = model.get_layer(name)
        layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def frozen_network(image_shape, class_count):
    return freezing.freeze_until(network(image_shape, class_count), CUT)


@pytest.fixture(scope="module")
def features_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def fit(toy_set, features_dir, tmp_path_factory):
    def fit(recipe, build_model=network, directory=None, image_set=toy_set):
        directory = directory or tmp_path_factory.mktemp("run") / "run"
        return training.fit(build_model, image_set, recipe, directory, progress=False, features_dir=features_dir)

    return fit


@pytest.fixture(scope="module")
def run(fit):
    return fit(RECIPE)


@pytest.fixture(scope="module")
def prefix(toy_set):
    keras.utils.set_random_seed(0)
    return frozen_prefix.split(frozen_network(toy_set.image_shape, 3), CUT)[0]


@pytest.fixture
def computed(monkeypatch):
    """How many images went through the frozen part, a list with a number for each call of `features`."""
    counts = []
    compute = frozen_prefix._compute

    def counting(prefix, show, missing, *arguments):
        counts.append(len(missing))
        return compute(prefix, show, missing, *arguments)

    monkeypatch.setattr(frozen_prefix, "_compute", counting)
    return counts


def all_of(features):
    return np.stack([features.store.read(places) for places in features.places])


def test_the_two_parts_do_what_the_model_does_with_its_weights(toy_set):
    model = network(toy_set.image_shape, 3)
    prefix, suffix = frozen_prefix.split(model, CUT)
    images = toy_set.val.images.astype("float32")
    np.testing.assert_allclose(
        suffix.predict(prefix.predict(images, verbose=0), verbose=0), model.predict(images, verbose=0), rtol=1e-6
    )
    assert suffix.get_layer("classes") is model.get_layer("classes")
    assert len(prefix.weights) + len(suffix.weights) == len(model.weights)


def test_what_is_left_to_train_can_be_built_anew_and_measured(toy_set, tmp_path, monkeypatch):
    build, shape = frozen_prefix.suffix_builder(network, toy_set.image_shape, 3, CUT)
    assert shape == (8, 8, 8) and build(shape, 3).to_json() == build(shape, 3).to_json()
    monkeypatch.setenv("TFPROJECT_CACHE", str(tmp_path))
    recipe = acceleration.resolve(dataclasses.replace(RECIPE, precision="auto"), build, shape, 3)
    assert recipe.precision in ("float32", "mixed_bfloat16", "mixed_float16")


def test_training_reads_features_in_the_order_in_which_it_would_have_read_images(toy_set, tmp_path):
    identity, whole = frozen_prefix.split(network(toy_set.image_shape, 3), "image")
    assert whole.count_params() > 0 == identity.count_params()
    features = frozen_prefix.features(identity, toy_set.train, tmp_path, progress=False)
    for options in ({"seed": 7, "epochs": 3}, {"seed": 7, "first_epoch": 2, "epochs": 3}):
        pairs = zip(features.training_batches(3, 32, **options), toy_set.train.training_batches(3, 32, **options))
        for count, ((x, y), (images, labels)) in enumerate(pairs, start=1):
            np.testing.assert_array_equal(x, images)
            np.testing.assert_array_equal(y, labels)
        assert count == 3 * (options["epochs"] - options.get("first_epoch", 0))
    for (x, y), (images, labels) in zip(features.batches(50), toy_set.train.batches(50), strict=True):
        np.testing.assert_array_equal(x, images)
        np.testing.assert_array_equal(y, labels)


MIXED = dataclasses.replace(RECIPE, precision="mixed_bfloat16")


@pytest.mark.parametrize("recipe", [RECIPE, VIEWED, MIXED], ids=["as they are", "three views", "mixed precision"])
def test_training_is_the_same_as_with_the_whole_network_frozen_as_keras_does_it(recipe, run, fit):
    cached = run if recipe is RECIPE else fit(recipe)
    # Cut at the image itself, the whole network is trained, on the same views.
    plain = fit(dataclasses.replace(recipe, frozen_until="image" if recipe.augment else ""), frozen_network)
    for column in ("loss", "val_loss", "accuracy", "val_accuracy"):
        np.testing.assert_allclose(cached.history[column], plain.history[column], rtol=1e-4)
    for weight, expected in zip(cached.model.weights, plain.model.weights, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-5)


def test_frozen_weights_are_bit_identical_and_all_else_has_moved(run, toy_set):
    keras.utils.set_random_seed(RECIPE.seed)
    with training.fitting._random_numbers_of_its_own(RECIPE.seed):
        before = frozen_network(toy_set.image_shape, 3)
    after = run.model
    for layer in before.layers:
        frozen = layer.name.startswith("conv1")
        for weight, trained in zip(layer.weights, after.get_layer(layer.name).weights, strict=True):
            assert np.array_equal(weight, trained) == frozen, weight.path
    assert run.metrics["frozen"]["sha256"] == freezing.frozen_digest(before)
    assert run.metrics["frozen"]["layers"] == ["conv1", "conv1_norm"]
    assert freezing.table(after) == freezing.table(before)
    predicted = after.predict(toy_set.val.images.astype("float32"), verbose=0).argmax(axis=1)
    assert (predicted == toy_set.val.labels).mean() == pytest.approx(run.history["val_accuracy"][-1], abs=1e-6)


class Stop(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_weights(run, fit, tmp_path, monkeypatch):
    saved = checkpoints.save

    def save_then_stop(directory, model, history):
        saved(directory, model, history)
        if len(history) == 2:
            raise Stop

    monkeypatch.setattr(checkpoints, "save", save_then_stop)
    with pytest.raises(Stop):
        fit(RECIPE, directory=tmp_path / "run")
    monkeypatch.undo()
    again = fit(RECIPE, directory=tmp_path / "run")
    for weight, expected in zip(again.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    with pytest.raises(UserError, match="another network"):  # other weights are frozen

        def other(image_shape, class_count):
            model = network(image_shape, class_count)
            model.get_layer("conv1").kernel.assign_add(model.get_layer("conv1").kernel)
            return model

        fit(RECIPE, other, directory=tmp_path / "run")


def test_each_image_goes_through_the_frozen_part_once_for_all_runs(run, fit, toy_set, prefix, computed, tmp_path):
    fit(dataclasses.replace(RECIPE, learning_rate=0.01, epochs=1, batch_size=16))
    assert computed == [0, 0]  # of train and val, as the run before had the same initial weights
    some = frozen_prefix.features(prefix, toy_set.train.take(range(10, 50)), tmp_path, progress=False)
    everything = frozen_prefix.features(prefix, toy_set.train, tmp_path, progress=False)
    assert computed[2:] == [40, 80]
    np.testing.assert_array_equal(all_of(everything)[0, 10:50], all_of(some)[0])


def test_a_frozen_part_works_in_the_precision_that_it_was_built_in(toy_set, tmp_path):
    def features(precision):
        with acceleration.dtype_policy(precision):
            image = keras.Input(toy_set.image_shape, name="image")
            turned = keras.ops.flip(image, -1) / 7.0  # bare operations, as VGG16's preprocessing has them
            prefix = keras.Model([image], keras.layers.Conv2D(4, 3, kernel_initializer="ones", name="conv")(turned))
        found = all_of(frozen_prefix.features(prefix, toy_set.val, tmp_path, progress=False))[0]
        assert found.dtype == np.float32
        expected = keras.ops.cast(prefix(toy_set.val.images.astype("float32")), "float32")
        np.testing.assert_allclose(found, expected, rtol=1e-6 if precision == "float32" else 2**-7)
        return found

    exact, rounded = features("float32"), features("mixed_bfloat16")  # neither is taken for the other
    assert 0 < np.abs(exact - rounded).max() <= 2**-6 * np.abs(exact).max()
    as_bfloat16 = rounded.view(np.uint32) & 0xFFFF
    assert not as_bfloat16.any() and (exact.view(np.uint32) & 0xFFFF).any()


def test_only_training_images_are_shown_in_views(toy_set, tmp_path):
    identity, _ = frozen_prefix.split(network(toy_set.image_shape, 3), "image")
    once = frozen_prefix.run_once(identity, toy_set, tmp_path, ("flip",), 2, progress=False)
    (seen, labels), = once.splits["val"].batches(50).as_numpy_iterator()
    np.testing.assert_array_equal(seen, toy_set.val.images)
    np.testing.assert_array_equal(labels, toy_set.val.labels)


def test_views_are_what_augmentation_makes_and_belong_to_the_image(toy_set, tmp_path):
    identity, _ = frozen_prefix.split(network(toy_set.image_shape, 3), "image")
    options = {"augment": ("flip",), "views": 6, "progress": False}
    seen = all_of(frozen_prefix.features(identity, toy_set.train, tmp_path, **options))
    images = toy_set.train.images
    same = (seen == images).all(axis=(2, 3, 4))
    assert (same != (seen == images[:, :, ::-1]).all(axis=(2, 3, 4))).all()
    assert 0.4 < same.mean() < 0.6 and 0.2 < (same[0] == same[1]).mean() < 0.8
    part = toy_set.train.take([7, 3, 90])
    np.testing.assert_array_equal(
        all_of(frozen_prefix.features(identity, part, tmp_path, **options)), seen[:, [7, 3, 90]]
    )
    other = all_of(frozen_prefix.features(identity, part, tmp_path, view_seed=1, **options))
    assert not np.array_equal(other, seen[:, [7, 3, 90]])


def test_an_epoch_shows_its_own_view(toy_set, tmp_path):
    identity, _ = frozen_prefix.split(network(toy_set.image_shape, 3), "image")
    augment = ("shift",)
    features = frozen_prefix.features(identity, toy_set.train, tmp_path, augment, views=2, progress=False)
    views = [{image.tobytes() for image in view} for view in all_of(features)]
    batches = [x.numpy() for x, _ in features.training_batches(3, 40, augment, epochs=3)]
    for epoch in range(3):
        shown = {image.tobytes() for x in batches[3 * epoch : 3 * epoch + 3] for image in x}
        assert shown == views[epoch % 2] != views[1 - epoch % 2]


def damage_array(place):
    content = bytearray((place / "arrays").read_bytes())
    content[len(content) // 2] ^= 1
    (place / "arrays").write_bytes(content)


def damage_index(place):
    content = bytearray((place / "index").read_bytes())
    content[32 * 5 + 3] ^= 1
    (place / "index").write_bytes(content)


def truncate_arrays(place):
    content = (place / "arrays").read_bytes()
    (place / "arrays").write_bytes(content[: len(content) - 100])


def truncate_index(place):
    content = (place / "index").read_bytes()
    (place / "index").write_bytes(content[: len(content) - 7])


def write_half_an_array_more(place):
    with open(place / "arrays", "ab") as file:
        file.write(b"\1" * 99)


def remove_arrays(place):
    (place / "arrays").unlink()


def describe_otherwise(place):
    (place / "description.json").write_text(json.dumps({"weights": "of another network"}))


@pytest.mark.parametrize(
    "damage, lost",
    [(damage_array, 1), (damage_index, 1), (truncate_arrays, 1), (truncate_index, 1), (write_half_an_array_more, 0),
     (remove_arrays, 30), (describe_otherwise, 30)],
)  # fmt: skip
def test_what_is_damaged_is_found_and_computed_anew(prefix, toy_set, tmp_path, computed, damage, lost):
    features = frozen_prefix.features(prefix, toy_set.val, tmp_path, progress=False)
    expected = all_of(features)
    damage(features.store.directory)
    for _ in range(2):
        again = frozen_prefix.features(prefix, toy_set.val, tmp_path, progress=False)
        np.testing.assert_array_equal(all_of(again), expected)
    assert computed == [30, lost, 0]


def test_other_weights_or_another_network_have_features_of_their_own(prefix, toy_set, tmp_path):
    images = toy_set.val.images.astype("float32")
    frozen_prefix.features(prefix, toy_set.val, tmp_path, progress=False)
    other = keras.models.clone_model(prefix)
    other.set_weights([2 * weight for weight in prefix.get_weights()])
    for model in (other, frozen_prefix.split(network(toy_set.image_shape, 3), "conv1")[0]):
        found = all_of(frozen_prefix.features(model, toy_set.val, tmp_path, progress=False))[0]
        np.testing.assert_allclose(found, model.predict(images, verbose=0), rtol=1e-4, atol=1e-4)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_interrupted_computation_goes_on_where_it_stopped(prefix, toy_set, tmp_path, computed, monkeypatch):
    monkeypatch.setattr(frozen_prefix, "WRITTEN_TOGETHER", 1)  # every batch is written at once
    write = feature_store._write_at

    def stop_in_the_third_batch(path, place, content):
        if path.name == "index" and place >= 2 * 16 * 32:
            raise Stop
        write(path, place, content)

    monkeypatch.setattr(feature_store, "_write_at", stop_in_the_third_batch)
    with pytest.raises(Stop):
        frozen_prefix.features(prefix, toy_set.train, tmp_path / "a", progress=False)
    monkeypatch.setattr(feature_store, "_write_at", write)
    resumed = frozen_prefix.features(prefix, toy_set.train, tmp_path / "a", progress=False)
    assert computed == [120, 120 - 2 * 16]
    whole = frozen_prefix.features(prefix, toy_set.train, tmp_path / "b", progress=False)
    np.testing.assert_array_equal(all_of(resumed), all_of(whole))


def test_a_full_disk_is_told_in_one_sentence(prefix, toy_set, tmp_path):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, unlimited[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written to .* MB more are needed\); make room, or name"):
            frozen_prefix.features(prefix, toy_set.train, tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    features = frozen_prefix.features(prefix, toy_set.train, tmp_path, progress=False)
    images = toy_set.train.images.astype("float32")
    np.testing.assert_allclose(all_of(features)[0], prefix.predict(images, verbose=0), rtol=1e-4, atol=1e-5)


def test_half_precision_takes_half_the_room(prefix, toy_set, tmp_path):
    sizes, found = [], []
    for dtype in ("float32", "float16"):
        features = frozen_prefix.features(prefix, toy_set.val, tmp_path, dtype=dtype, progress=False)
        sizes.append((features.store.directory / "arrays").stat().st_size)
        found.append(next(iter(features.batches()))[0].numpy())
    assert sizes[0] == 2 * sizes[1] and found[1].dtype == np.float32
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_numbers_too_large_for_half_precision_are_refused(toy_set, tmp_path):
    image = keras.Input(toy_set.image_shape)
    large = keras.Model([image], keras.layers.Rescaling(1000.0)(image))
    with pytest.raises(UserError, match="no number of float16; use float32"):
        frozen_prefix.features(large, toy_set.val, tmp_path, dtype="float16", progress=False)


def residual(image_shape, class_count):
    image = keras.Input(image_shape, name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv1")(image)
    y = keras.layers.Conv2D(4, 3, padding="same", name="conv2")(x)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model([image], keras.layers.Dense(class_count, activation="softmax", name="classes")(x), name="res")


def test_what_cannot_be_done_is_told_in_one_sentence(prefix, toy_set, tmp_path):
    model = residual((16, 16, 3), 3)
    with pytest.raises(UserError, match="within a branch .* such as image, conv1, sum, mean"):
        frozen_prefix.split(model, "conv2")
    with pytest.raises(UserError, match="has no layer 'conv3'; choose one such as conv1"):
        frozen_prefix.split(model, "conv3")
    with pytest.raises(UserError, match="'mixup' mixes"):
        frozen_prefix.features(prefix, toy_set.train, tmp_path, ("flip", "mixup"), 2)
    with pytest.raises(UserError, match="batch size 121 is larger than the 120"):
        frozen_prefix.features(prefix, toy_set.train, tmp_path, progress=False).training_batches(3, 121)


def test_a_split_with_equal_images_and_large_features_is_read_right(prefix, toy_set, tmp_path, monkeypatch):
    images = toy_set.val.images[[0, 1, 0, 2, 1]]
    twice = Split(images, np.arange(5), tuple("abcde"))
    features = frozen_prefix.features(prefix, twice, tmp_path, progress=False)
    monkeypatch.setattr(frozen_prefix, "READ_TOGETHER", 2 * features.store.size)
    batches = list(features.batches(256))
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    expected = prefix.predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(np.concatenate([x for x, _ in batches]), expected, rtol=1e-4, atol=1e-5)
