"""A Keras/TensorFlow study of convolutional networks, and a tool for land-cover tiles.

    from tfproject import data, evaluation, models, training

    tiles = data.load("eurosat", split_files="lists/", seed=0)
    recipe = training.Recipe(epochs=20, augment=("symmetries", "shift"))
    run = training.fit(models.land_cover_cnn, tiles, recipe, "runs/eurosat-0")
    scores = evaluation.evaluate(run.model, tiles.test, tiles.class_names)
"""

import os

# TensorFlow runs operations that do not wait for each other side by side; with its oneDNN kernels the same step then
# gives other last bits from time to time. One at a time, each on all cores, a run can be repeated bit for bit. Read by
# TensorFlow when it starts, so it must stand before the first import of it.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# TensorFlow leaves these kernels off where a processor has no instructions made for networks, but they are faster there
# too: with AVX2 alone the custom CNN's training step takes little more than half the time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
