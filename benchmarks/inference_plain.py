"""`model.predict` as a tutorial writes it, with TensorFlow's own threads and kernels; `inference.py` starts it.

Each line of standard input is one of WAYS; the answer is how many seconds it took, and `probabilities.npy`.
"""

import json
import pathlib
import sys
import time

import keras  # before tfproject, which chooses other kernels
import numpy as np
import tensorflow as tf

from tfproject.data import pipeline
from tfproject.models import saved_models


def ways(model, images, folder, batch_size):
    """name: a function that gives the probabilities."""

    def from_files():
        files = keras.utils.image_dataset_from_directory(
            folder / "tiles", labels=None, image_size=images.shape[1:3], shuffle=False, verbose=False
        )
        return model.predict(files, verbose=0)

    untuned = pipeline.untuned(tf.data.Dataset.from_tensor_slices(images).batch(32))  # as many as `predict` takes
    return {
        "model.predict": lambda: model.predict(images, verbose=0),
        "model.predict, same batches": lambda: model.predict(images, batch_size=batch_size, verbose=0),
        "model.predict, tf.data's tuner off": lambda: model.predict(untuned, verbose=0),
        "model.predict, from the files": from_files,
    }


def main(path, folder, batch_size):
    folder = pathlib.Path(folder)
    found = ways(saved_models.load(path).model, np.load(folder / "images.npy"), folder, int(batch_size))
    print(json.dumps(list(found)), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        probabilities = found[line.strip()]()
        seconds = time.perf_counter() - start
        np.save(folder / "probabilities.npy", probabilities)
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
