"""Layouts of features in the plane: t-SNE, how it is judged, and TensorBoard's projector reading what was written."""

import io
import json

import keras
import numpy as np
import openTSNE
import pytest
from PIL import Image
from sklearn.manifold import trustworthiness as scikit_learns
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.interpret import embedding
from tfproject.interpret.network import lay_open


def blobs(count=40, width=60):
    """Three groups far apart: features and labels."""
    random = np.random.default_rng(0)
    labels = np.arange(3 * count) % 3
    centres = 20 * random.normal(size=(3, width))
    return (centres[labels] + random.normal(size=(3 * count, width))).astype(np.float32), labels


def split_of(images):
    return Split(images, np.zeros(len(images), np.int64), tuple(map(str, range(len(images)))))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


def classifier(dense=True):
    keras.utils.set_random_seed(2)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(5, 3, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    if dense:
        x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
        x = keras.layers.Dense(2, activation="softmax", name="classes")(x)
    else:
        x = keras.layers.Softmax()(x)
    return keras.Model(image, x)


def values_of(model, name, images):
    part = keras.Model(model.input, model.get_layer(name).output)
    return part(images.astype("float32"), training=False).numpy()


def test_features_of_dense_layers_are_what_the_layers_give(images):
    model = classifier()
    found = embedding.features(lay_open(model), split_of(images), batch_size=4)
    assert list(found) == ["hidden", "classes"]
    hidden = values_of(model, "hidden", images)
    np.testing.assert_allclose(found["hidden"], hidden, rtol=1e-5, atol=1e-6)
    kernel, bias = model.get_layer("classes").get_weights()
    np.testing.assert_allclose(found["classes"], hidden @ kernel + bias, rtol=1e-4, atol=1e-5)  # logits


def test_features_without_a_dense_layer_are_the_last_maps_averaged(images):
    model = classifier(dense=False)
    found = embedding.features(lay_open(model), split_of(images), batch_size=4)
    assert list(found) == ["second"]
    np.testing.assert_allclose(found["second"], values_of(model, "mean", images), rtol=1e-5, atol=1e-6)


def test_features_of_named_layers_in_the_order_asked_for(images):
    found = embedding.features(lay_open(classifier()), split_of(images), ["hidden", "first"])
    assert [(name, rows.shape) for name, rows in found.items()] == [("hidden", (11, 6)), ("first", (11, 4))]


def test_features_that_cannot_be(images):
    network = lay_open(classifier())
    with pytest.raises(UserError, match="no convolution or dense layer 'absent'"):
        embedding.features(network, split_of(images), ["absent"])
    with pytest.raises(UserError, match=r"\(10, 8, 3\) and the network takes \(8, 8, 3\)"):
        embedding.features(network, split_of(np.zeros((2, 10, 8, 3), np.uint8)))
    network["hidden"].layer.bias.assign(np.full(6, np.inf, np.float32))
    with pytest.raises(UserError, match="hidden gives numbers that are not finite"):
        embedding.features(network, split_of(images))


def test_tsne_keeps_blobs_apart_and_repeats():
    rows, labels = blobs()
    found = embedding.tsne(rows, perplexity=10, n_jobs=1)
    assert found.points.shape == (120, 2) and found.perplexity == 10 and found.components == 50
    centres = np.array([found.points[labels == label].mean(axis=0) for label in range(3)])
    spread = max(np.linalg.norm(found.points[labels == c] - centres[c], axis=1).max() for c in range(3))
    assert min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 2 * spread
    assert embedding.neighbourhood_accuracy(found.points, labels) == 1
    np.testing.assert_array_equal(found.points, embedding.tsne(rows, perplexity=10, n_jobs=1).points)


def test_few_images_lower_the_perplexity():
    rows, _ = blobs(count=5)
    found = embedding.tsne(rows, n_jobs=1)
    assert found.perplexity == pytest.approx(14 / 3)
    assert np.isfinite(found.points).all() and len(np.unique(found.points, axis=0)) == 15


@pytest.mark.parametrize("count, asked, used", [(40, 12, 12), (5, 30, 14 / 3)])
def test_the_perplexity_that_is_told_is_the_one_that_was_used(monkeypatch, count, asked, used):
    """And the layout begins with the principal components, without which t-SNE loses how groups lie to each other."""
    given = []

    def watched(**options):
        given.append(options)
        return tsne(**options)

    tsne = openTSNE.TSNE
    monkeypatch.setattr(openTSNE, "TSNE", watched)
    found = embedding.tsne(blobs(count)[0], perplexity=asked, n_jobs=1)
    (options,) = given
    assert options["perplexity"] == found.perplexity == pytest.approx(used)
    assert options["initialization"] == "pca" and options["neighbors"] == "exact"


def test_too_few_or_equal_images_are_laid_out_by_their_components():
    two = embedding.tsne(np.array([[0.0, 0, 0], [3, 4, 0]]))
    assert two.perplexity is None
    assert np.linalg.norm(two.points[0] - two.points[1]) == pytest.approx(5)
    np.testing.assert_array_equal(embedding.tsne([[1.0, 2, 3]]).points, [[0, 0]])
    equal = embedding.tsne(np.full((40, 9), 0.1, np.float32))
    assert equal.perplexity is None and not equal.points.any()


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_very_small_and_large_features(scale):
    rows, labels = blobs(count=10)
    found = embedding.tsne(rows * np.float32(scale), n_jobs=1)
    assert embedding.neighbourhood_accuracy(found.points, labels, k=5) == 1


def test_what_tsne_cannot_do():
    with pytest.raises(UserError, match="no image"):
        embedding.tsne(np.empty((0, 5)))
    with pytest.raises(UserError, match="perplexity is 0"):
        embedding.tsne(np.eye(9), perplexity=0)


def test_principal_components_hold_the_variance():
    random = np.random.default_rng(0)
    rows = 3 + random.normal(size=(50, 2)) @ random.normal(size=(2, 80))
    reduced, kept = embedding.principal_components(rows, 2)
    assert kept == pytest.approx(1)
    distances = np.linalg.norm(rows[:, None] - rows, axis=2)
    np.testing.assert_allclose(np.linalg.norm(reduced[:, None] - reduced, axis=2), distances, rtol=1e-3, atol=1e-3)
    _, less = embedding.principal_components(rows, 1)
    values = np.linalg.eigvalsh(np.cov(rows.T))
    assert less == pytest.approx(values[-1] / values.sum(), rel=1e-4)


def brute_force_accuracy(points, labels, k):
    right = 0
    for i, point in enumerate(points):
        nearest = sorted((np.sum((point - other) ** 2), j) for j, other in enumerate(points) if j != i)[:k]
        votes = [labels[j] for _, j in nearest]
        most = max(votes.count(label) for label in votes)
        tied = {label for label in votes if votes.count(label) == most}
        nearness = {label: sum(k - place for place, vote in enumerate(votes) if vote == label) for label in tied}
        right += max(nearness, key=nearness.get) == labels[i]
    return right / len(points)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_neighbourhood_accuracy_against_brute_force(k):
    random = np.random.default_rng(k)
    labels = random.integers(0, 3, 90)
    points = random.normal(size=(90, 4)) + labels[:, None]
    found = embedding.neighbourhood_accuracy(points, labels, k)
    assert 0.4 < found < 1
    assert found == pytest.approx(brute_force_accuracy(points, labels, k))


def test_neighbourhood_accuracy_of_few():
    assert embedding.neighbourhood_accuracy([[0.0], [1], [9]], [4, 4, 4]) == 1  # one class
    assert embedding.neighbourhood_accuracy([[0.0], [1]], [0, 1]) == 0  # each has only the other
    assert np.isnan(embedding.neighbourhood_accuracy([[0.0]], [0]))


@pytest.mark.parametrize("n, k", [(60, 10), (61, 5), (9, 3)])
def test_trustworthiness_is_scikit_learns(n, k):
    random = np.random.default_rng(n)
    rows = random.normal(size=(n, 8)).astype(np.float32)
    points = rows[:, :2] + random.normal(size=(n, 2))
    found = embedding.trustworthiness(rows, points, k)
    assert found == pytest.approx(scikit_learns(rows, points, n_neighbors=k), abs=1e-9)
    assert found < 0.95


def test_trustworthiness_in_many_blocks(monkeypatch):
    random = np.random.default_rng(0)
    rows, points = random.normal(size=(500, 6)), random.normal(size=(500, 2))
    monkeypatch.setattr(embedding, "WORKING_MEMORY", 0.1)  # 26 rows a block
    assert embedding.trustworthiness(rows, points) == pytest.approx(scikit_learns(rows, points, n_neighbors=10))


def test_trustworthiness_of_few():
    assert np.isnan(embedding.trustworthiness(np.eye(2), np.eye(2)))
    assert embedding.trustworthiness(np.eye(5), np.eye(5)[:, :2], k=30) <= 1


def test_neighbourhood_rows_layer_by_layer():
    rows, labels = blobs()
    noise = np.random.default_rng(5).normal(size=rows.shape).astype(np.float32)
    layers = {"noise": noise, "apart": rows}
    laid_out = {name: embedding.tsne(values, perplexity=10, n_jobs=1) for name, values in layers.items()}
    first, second = embedding.neighbourhood_rows(layers, laid_out, labels, k=7)
    assert (first["layer"], second["layer"], second["neighbours"], second["width"]) == ("noise", "apart", 7, 60)
    assert second["accuracy"] == second["embedding_accuracy"] == 1
    assert max(first["accuracy"], first["embedding_accuracy"]) < 0.6
    assert first["largest_class"] == pytest.approx(1 / 3)
    assert second["trustworthiness"] == pytest.approx(scikit_learns(rows, laid_out["apart"].points, n_neighbors=7))


@pytest.fixture
def reader(tmp_path):
    """Asks TensorBoard's projector for what is in a directory."""

    def ask(route, **query):
        provider = MultiplexerDataProvider(EventMultiplexer(), str(tmp_path))
        plugin = ProjectorPlugin(TBContext(logdir=str(tmp_path), data_provider=provider))
        answer = Client(plugin.get_plugin_apps()[route]).get("/", query_string=query)
        assert answer.status_code == 200, answer.data
        return answer.data

    return ask


def test_tensorboard_reads_the_projectors_files(tmp_path, reader, images):
    random = np.random.default_rng(0)
    narrow, wide = np.maximum(0, random.normal(size=(11, 3))).astype(np.float32), random.normal(size=(11, 300))
    labels, names = np.arange(11) % 2, [f"a\tname {i}" for i in range(11)]
    layers = {"part/hidden": narrow, "part hidden": wide}
    embedding.write_projector(tmp_path, layers, labels, ("cat", "dog"), names, images, components=6)
    assert json.loads(reader("/runs")) == ["."]
    config = json.loads(reader("/info", run="."))
    assert [entry["tensorName"] for entry in config["embeddings"]] == ["part/hidden", "part hidden"]
    assert config["embeddings"][0]["tensorShape"] == [11, 3]
    read = np.frombuffer(reader("/tensor", run=".", name="part/hidden"), np.float32).reshape(11, 3)
    np.testing.assert_allclose(read, narrow, rtol=1e-5)
    reduced = np.frombuffer(reader("/tensor", run=".", name="part hidden"), np.float32).reshape(11, -1)
    np.testing.assert_allclose(reduced, embedding.principal_components(wide, 6)[0], rtol=1e-4, atol=1e-5)
    lines = reader("/metadata", run=".", name="part hidden").decode().splitlines()
    assert lines[0] == "name\tclass" and lines[4] == "a name 3\tdog" and len(lines) == 12
    with Image.open(io.BytesIO(reader("/sprite_image", run=".", name="part hidden"))) as sprite:
        width, height = config["embeddings"][1]["sprite"]["singleImageDim"]
        assert (width, height) == (8, 8) and sprite.size == (32, 32)
        np.testing.assert_array_equal(np.asarray(sprite)[8:16, 16:24], images[6])  # four a row


def test_the_sprite_stays_within_its_bound(monkeypatch):
    monkeypatch.setattr(embedding, "SPRITE_SIDE", 64)
    grey = np.full((30, 20, 40, 3), 77, np.uint8)
    content, (width, height) = embedding._sprite(grey)
    with Image.open(io.BytesIO(content)) as sheet:
        assert max(sheet.size) <= 64 and width == 2 * height
        assert (np.asarray(sheet)[: 5 * height, : 6 * width] == 77).all()


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        embedding.write_projector(tmp_path / "file" / "x", {}, [], ())
