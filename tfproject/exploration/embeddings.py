"""What a network's last features say of an image set: which images lie apart, and whether classes form clusters."""

import numpy as np

from tfproject.errors import UserError

COMPONENTS = 50  # principal components that are clustered


def penultimate_features(model, images, batch_size=256):
    """What a classifier's last dense layer is given.

    Args:
        model: a functional or Sequential Keras model from float32 images (b, h, w, 3) in 0..255, trained or not, that
            ends with a dense layer.
        images: uint8 (n, h, w, 3) of the model's size.
        batch_size: images a step.

    Returns:
        float32 (n, d).

    Raises:
        UserError: if the model has no dense layer of its own, or the images are of another size.
    """
    import keras
    import tensorflow as tf

    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if not dense:
        raise UserError(f"The model {model.name} has no dense layer; give a classifier that ends with one.")
    expected = tuple(model.input_shape[1:])
    if images.shape[1:] != expected:
        raise UserError(
            f"The images are {images.shape[1:]} and the model takes {expected}; load the images with the model's "
            "image size."
        )
    batch_size = max(1, min(batch_size, len(images)))
    part = keras.Model(model.inputs, dense[-1].input)

    @tf.function(input_signature=[tf.TensorSpec((batch_size, *expected), tf.float32)], autograph=False)
    def compiled(batch):
        return tf.cast(part([batch], training=False), tf.float32)

    found = np.empty((len(images), dense[-1].input.shape[-1]), np.float32)
    padded = np.zeros((batch_size, *expected), np.float32)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded[: len(batch)] = batch
        found[start : start + batch_size] = compiled(tf.constant(padded)).numpy()[: len(batch)]
    return found


def own_class_distance(features, labels, k=10):
    """How far each image lies from its k nearest neighbours of its own class.

    Features are first scaled to length 1, which makes the distance one of direction (Sun et al. 2022).

    Args:
        features: float (n, d).
        labels: int (n,).
        k: neighbours; fewer in a class with fewer other images.

    Returns:
        float64 (n,), the mean Euclidean distance, 0..2; NaN for the only image of a class.

    Reference:
        Angiulli & Pizzuti 2002, Fast outlier detection in high dimensional spaces (PKDD); Sun et al. 2022,
        Out-of-distribution detection with deep nearest neighbors (https://arxiv.org/abs/2204.06507).
    """
    from sklearn.neighbors import NearestNeighbors

    directions, labels = _directions(features), np.asarray(labels)
    found = np.full(len(labels), np.nan)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) > 1:
            neighbours = NearestNeighbors(n_neighbors=min(k, len(own) - 1), algorithm="brute").fit(directions[own])
            # Without an argument the points themselves are asked for, each without itself.
            found[own] = neighbours.kneighbors()[0].mean(axis=1)
    return found


def outliers(features, labels, class_names, count=20, k=10):
    """The images that lie farthest from their own class, each measured by what is usual in that class.

    Args:
        features: float (n, d).
        labels: int (n,).
        class_names: c names.
        count: how many.
        k: neighbours, see `own_class_distance`.

    Returns:
        A list of dicts, the farthest first for how much the distances in its class vary (the robust z-score of the
        distance's logarithm: less the class's median, by 1.4826 times its median absolute deviation): index, class,
        distance, ratio (the distance by the median of its class), z and neighbours, the classes of its k nearest
        neighbours among all images {name: how many}, the most frequent first.
    """
    from sklearn.neighbors import NearestNeighbors

    labels = np.asarray(labels)
    distances = own_class_distance(features, labels, k)
    known = np.isfinite(distances)
    logarithms = np.log(np.maximum(distances, 1e-9))
    usual, scores = np.full(len(labels), np.nan), np.full(len(labels), -np.inf)
    for label in np.unique(labels[known]):
        own = known & (labels == label)
        usual[own] = np.exp(np.median(logarithms[own]))
        above = logarithms[own] - np.median(logarithms[own])
        scores[own] = above / max(1.4826 * np.median(np.abs(above)), 1e-9)
    chosen = [int(i) for i in np.argsort(-scores, kind="stable")[:count] if known[i]]
    if not chosen:
        return []
    directions = _directions(features)
    near = NearestNeighbors(n_neighbors=min(k + 1, len(labels)), algorithm="brute").fit(directions)
    rows = []
    for i, found in zip(chosen, near.kneighbors(directions[chosen], return_distance=False)):
        names, counts = np.unique(labels[[j for j in found if j != i][:k]], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        rows.append(
            {
                "index": i,
                "class": class_names[labels[i]],
                "distance": float(distances[i]),
                "ratio": float(distances[i] / usual[i]),
                "z": float(scores[i]),
                "neighbours": {class_names[names[j]]: int(counts[j]) for j in order},
            }
        )
    return rows


def clusters(features, labels, class_names, seed=0):
    """Whether images fall into their classes without being told of them: k-means with as many clusters as classes.

    On at most 50 principal components of the features scaled to length 1.

    Args:
        features: float (n, d).
        labels: int (n,).
        class_names: c names; n must be at least c.
        seed: of the components and the clusters' first centres.

    Returns:
        A dict: adjusted_rand (Hubert & Arabie 1985) and normalised_mutual_information, both 1 where clusters are the
        classes and about 0 where they have nothing to do with them; matched_accuracy, the share of images in the
        cluster that is matched with their class, the best one-to-one matching; table, c lists of c counts, rows the
        classes and columns the clusters in the matching's order.

    Raises:
        UserError: if there are fewer images than classes.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    labels, class_count = np.asarray(labels), len(class_names)
    if len(labels) < class_count:
        raise UserError(f"There are {len(labels)} images for {class_count} clusters; give at least one a cluster.")
    directions = _directions(features)
    components = min(COMPONENTS, *directions.shape)
    reduced = PCA(components, random_state=seed).fit_transform(directions)
    found = KMeans(class_count, n_init=10, random_state=seed).fit_predict(reduced)
    table = np.zeros((class_count, class_count), np.int64)
    np.add.at(table, (labels, found), 1)
    table = table[:, linear_sum_assignment(-table)[1]]
    return {
        "adjusted_rand": float(adjusted_rand_score(labels, found)),
        "normalised_mutual_information": float(normalized_mutual_info_score(labels, found)),
        "matched_accuracy": float(table.trace() / len(labels)),
        "table": table.tolist(),
    }


def _directions(features):
    features = np.asarray(features, np.float32)
    if not np.isfinite(features).all():
        raise UserError("The features hold numbers that are not finite; give a network that was trained.")
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
