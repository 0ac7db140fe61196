"""A Keras/TensorFlow study of convolutional networks, and a tool for land-cover tiles.

    from tfproject import data, evaluation, models, training

    tiles = data.load("eurosat", split_files="lists/", seed=0)
    recipe = training.Recipe(epochs=20, augment=("symmetries", "shift"))
    run = training.fit(models.land_cover_cnn, tiles, recipe, "runs/eurosat-0")
    scores = evaluation.evaluate(run.model, tiles.test, tiles.class_names)
"""

__version__ = "0.1.0"
