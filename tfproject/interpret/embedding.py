"""What a layer says of many images, laid out in the plane by t-SNE, and how far the layout can be believed."""

import dataclasses
import io
import pathlib
import re

import numpy as np

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.interpret.attribution import default_batch_size

WORKING_MEMORY = 128  # MiB for a block of distances: the bound of what would be n x n numbers
COMPONENTS = 50  # numbers per image that t-SNE works on at most
FEWEST = 7  # images: with fewer there is no neighbourhood to keep
WORTH_THREADS = 2000  # images
SPRITE_SIDE = 8192  # pixels: TensorBoard's own bound, from the largest texture of common graphics cards
THUMBNAIL_SIDE = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """Points in the plane, one per image.

    Attributes:
        points: float32, shape (n, 2).
        perplexity: as it was used; None where the points are too few or all equal, and show principal components.
        components: numbers per image that t-SNE worked on.
        variance_kept: the share of the features' variance that these components hold, in 0..1.
    """

    points: np.ndarray
    perplexity: float | None
    components: int
    variance_kept: float


def features(network, split, layer_names=None, batch_size=None):
    """What layers say of every image.

    Args:
        network: a `tfproject.interpret.Network`.
        split: a Split with images of the network's size, uint8 (n, h, w, 3).
        layer_names: which layers; None: all dense layers, or the last convolution if there is none. A convolution's
            maps are averaged over their places.
        batch_size: images a step; if None 128, or fewer where they are large.

    Returns:
        A dict from layer name to float32 (n, units), in the order of the layers given.

    Raises:
        UserError: if there is no such layer or no layer at all, the images are of another size, or a layer gives
            numbers that are not finite.
    """
    import keras

    batch_size = batch_size or min(128, 4 * default_batch_size(network.image_shape))

    if layer_names is None:
        unit_layers = network.dense or network.convolutions[-1:]
        if not unit_layers:
            raise UserError("The network has no dense layer and no convolution; give one that has either.")
    else:
        unit_layers = [network[name] for name in layer_names]
    outputs = [
        keras.ops.mean(unit_layer.output, axis=(1, 2)) if unit_layer.kind == "convolution" else unit_layer.output
        for unit_layer in unit_layers
    ]
    values = network.values(outputs, split.images, batch_size)
    found = {layer.name: rows for layer, rows in zip(unit_layers, values)}
    for name, rows in found.items():
        if not np.isfinite(rows).all():
            raise UserError(f"The layer {name} gives numbers that are not finite; give a network that was trained.")
    return found


def tsne(features, perplexity=30, seed=0, n_jobs=-1):
    """t-SNE in two dimensions with openTSNE, from the first two principal components on.

    Features with more numbers than COMPONENTS are first reduced to that many principal components, which takes away
    mostly noise and nearly all of the time (van der Maaten & Hinton 2008 reduce to 30). The neighbours are exact, so
    that the same features and seed give the same points.

    Args:
        features: float (n, d).
        perplexity: the size of the neighbourhood that is kept, in images; lowered to (n - 1) / 3 where there are too
            few images for it.
        seed: for the principal components.
        n_jobs: threads; -1 for all cores. Fewer than 2,000 images are left to one: threads would mostly wait for each
            other.

    Returns:
        Embedding. With fewer than 7 images, or only equal ones, its points are principal components.

    Raises:
        UserError: if there is no image or the perplexity is below 1.

    Reference:
        van der Maaten & Hinton 2008, Visualizing data using t-SNE (JMLR 9); Poličar, Stražar & Zupan 2024, openTSNE
        (Journal of Statistical Software 109); Kobak & Berens 2019, The art of using t-SNE for single-cell
        transcriptomics (https://doi.org/10.1038/s41467-019-13056-x), for the initialisation.
    """
    features = np.asarray(features, np.float32)
    if not len(features):
        raise UserError("There is no image to lay out; give features of at least one.")
    if perplexity < 1:
        raise UserError(f"perplexity is {perplexity}; give at least 1, commonly 5 to 50.")
    reduced, kept = principal_components(features, COMPONENTS, seed)
    if len(reduced) < FEWEST or not reduced.any():
        points = np.zeros((len(reduced), 2), np.float32)
        points[:, : reduced.shape[1]] = reduced[:, :2]
        return Embedding(points, None, reduced.shape[1], kept)
    import openTSNE

    perplexity = min(perplexity, (len(reduced) - 1) / 3)
    points = openTSNE.TSNE(
        perplexity=perplexity,
        initialization="pca",
        neighbors="exact",
        n_jobs=n_jobs if len(reduced) >= WORTH_THREADS else 1,
        random_state=seed,
    ).fit(reduced / np.abs(reduced).max())  # the scale does not matter, and squares of very small numbers are 0
    return Embedding(np.asarray(points, np.float32), float(perplexity), reduced.shape[1], kept)


def principal_components(features, count, seed=0):
    """The first principal components, by a randomised decomposition where there are many (Halko et al. 2011).

    Args:
        features: float (n, d).
        count: how many; fewer where n or d is smaller.
        seed: of the randomised decomposition.

    Returns:
        (float32 (n, count), mean 0, widest first; the share of the variance that they hold, in 0..1).
    """
    from sklearn.decomposition import PCA

    centred = features - features.mean(axis=0)
    largest = np.abs(centred).max(initial=0)
    # Rounding leaves equal rows a little apart, which is no variance.
    if len(features) < 2 or largest <= 1e-6 * np.abs(features).max(initial=0):
        return np.zeros((len(features), min(count, *features.shape)), np.float32), 1.0
    # The scale is taken out so that squares of very large or small numbers stay finite.
    decomposition = PCA(min(count, *features.shape), svd_solver="auto", random_state=seed)
    reduced = decomposition.fit_transform(centred / largest) * largest
    return reduced.astype(np.float32), float(min(1, decomposition.explained_variance_ratio_.sum()))


def neighbourhood_accuracy(points, labels, k=10):
    """How often an image's k nearest neighbours, without itself, vote for its class.

    Args:
        points: float (n, d), features or an embedding's points; Euclidean distance.
        labels: int (n,).
        k: neighbours; fewer where there are not as many others. Where classes have as many votes, the one whose
            neighbours are nearer wins.

    Returns:
        A share in 0..1; NaN for fewer than two images.
    """
    from sklearn.neighbors import NearestNeighbors

    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    k = min(k, len(points) - 1)
    if k < 1:
        return float("nan")
    # Without an argument the points themselves are asked for, each without itself.
    neighbours = NearestNeighbors(n_neighbors=k, n_jobs=-1).fit(points).kneighbors(return_distance=False)
    votes = np.zeros((len(points), labels.max() + 1))
    for place in range(k):
        # All that nearness adds is less than half a vote.
        votes[np.arange(len(points)), labels[neighbours[:, place]]] += 1 + (k - place) / (k * (k + 1) + 1)
    return float((votes.argmax(axis=1) == labels).mean())


def trustworthiness(features, points, k=10):
    """Whether images that are neighbours in the embedding are so in the features too: 1 if all are.

    The same number as scikit-learn's, which keeps several n x n arrays (2.4 GB for 10,000 images); here the distances
    are computed a block of rows at a time, for all images.

    Args:
        features: float (n, d).
        points: float (n, 2), their embedding.
        k: neighbours; at most (n - 1) // 2, for which it is defined.

    Returns:
        A share in 0..1; NaN for fewer than three images.

    Reference:
        Venna & Kaski 2001, Neighborhood preservation in nonlinear projection methods (ICANN).
    """
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    n = len(features)
    k = min(k, (n - 1) // 2)
    if k < 1:
        return float("nan")
    neighbours = NearestNeighbors(n_neighbors=k, n_jobs=-1).fit(points).kneighbors(return_distance=False)

    def penalties(distances, start):
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        found = np.zeros(len(distances), np.int64)
        for column in neighbours[start : start + len(distances)].T:
            rank = 1 + (distances < distances[rows, column][:, None]).sum(axis=1)
            found += np.maximum(0, rank - k)
        return found

    blocks = pairwise_distances_chunked(features, reduce_func=penalties, working_memory=WORKING_MEMORY)
    return float(1 - 2 / (n * k * (2 * n - 3 * k - 1)) * sum(int(block.sum()) for block in blocks))


def neighbourhood_rows(features_of_layers, embeddings, labels, k=10):
    """How well the classes lie apart in each layer and in its embedding, layer by layer.

    Args:
        features_of_layers: a dict from layer name to float (n, d).
        embeddings: a dict from the same names to Embedding.
        labels: int (n,).
        k: neighbours, see `neighbourhood_accuracy`.

    Returns:
        A list of dicts: layer, width (numbers per image), images, neighbours, accuracy (in the features),
        embedding_accuracy, trustworthiness, largest_class (the share of the most frequent class: what guessing it
        would give), perplexity, components, variance_kept.
    """
    counts = np.unique(labels, return_counts=True)[1]
    return [
        {
            "layer": name,
            "width": rows.shape[1],
            "images": len(rows),
            "neighbours": max(0, min(k, len(rows) - 1)),
            "accuracy": neighbourhood_accuracy(rows, labels, k),
            "embedding_accuracy": neighbourhood_accuracy(embeddings[name].points, labels, k),
            "trustworthiness": trustworthiness(rows, embeddings[name].points, k),
            "largest_class": float(counts.max() / counts.sum()),
            "perplexity": embeddings[name].perplexity,
            "components": embeddings[name].components,
            "variance_kept": embeddings[name].variance_kept,
        }
        for name, rows in features_of_layers.items()
    ]


def write_projector(directory, features_of_layers, labels, class_names, names=None, images=None, components=200):
    """Write the files of TensorBoard's projector; `tensorboard --logdir DIRECTORY` then shows them.

    `projector_config.pbtxt`, a table of numbers (TSV) per layer, `metadata.tsv` with each image's name and class, and
    `sprite.png` with all images in small. Numbers as text, because TensorBoard takes some binary files for text.

    Args:
        directory: where to; made if it is not there.
        features_of_layers: a dict from layer name to float (n, d), such as `features` gives, or an embedding's points.
        labels: int (n,), indices into class_names.
        class_names: c names.
        names: n names; numbers if None.
        images: uint8 (n, h, w, 3), or None for points without pictures. They are made smaller than 64 pixels where it
            takes that for the sprite to stay within 8192 pixels.
        components: wider features are written as this many principal components, as the projector itself would take.

    Raises:
        UserError: if the directory cannot be written.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    directory = pathlib.Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory} cannot be made ({error.strerror}); give a folder that may be written.") from error
    names = range(len(labels)) if names is None else names
    lines = ["name\tclass", *(f"{_cell(name)}\t{_cell(class_names[label])}" for name, label in zip(names, labels))]
    write_atomically(directory / "metadata.tsv", "\n".join(lines) + "\n")
    if images is not None:
        sheet, thumbnail = _sprite(images)
        write_atomically(directory / "sprite.png", sheet)
    config = ProjectorConfig()
    for number, (name, rows) in enumerate(features_of_layers.items()):
        if rows.shape[1] > components:
            rows, _ = principal_components(rows, components)
        table = io.StringIO()
        np.savetxt(table, rows, fmt="%.6g", delimiter="\t")
        path = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.tsv"
        write_atomically(directory / path, table.getvalue())
        entry = config.embeddings.add(tensor_name=name, tensor_path=path, metadata_path="metadata.tsv")
        entry.tensor_shape.extend(rows.shape)
        if images is not None:
            entry.sprite.image_path = "sprite.png"
            entry.sprite.single_image_dim.extend(thumbnail)
    write_atomically(directory / "projector_config.pbtxt", text_format.MessageToString(config))


def _cell(text):
    return re.sub(r"\s", " ", str(text))


def _sprite(images):
    """All images on one square sheet, row by row, as PNG bytes, and an image's (width, height) on it."""
    from PIL import Image

    per_side = max(1, int(np.ceil(np.sqrt(len(images)))))
    height, width = images.shape[1:3]
    scale = min(1, THUMBNAIL_SIDE / max(height, width), SPRITE_SIDE / per_side / max(height, width))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    sheet = Image.new("RGB", (per_side * size[0], per_side * size[1]), "white")
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
        sheet.paste(small, (i % per_side * size[0], i // per_side * size[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue(), size
