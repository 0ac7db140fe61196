import keras
import numpy as np
import pytest

from tfproject import models


def test_custom_cnn_has_the_courses_number_of_parameters():
    model = models.custom_cnn((32, 32, 3), 10)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 551_466
    plain = models.custom_cnn((32, 32, 3), 10, batch_norm=False, dropout=0.3)
    assert plain.count_params() == 551_466 - 2 * 2 * (32 + 64 + 128)
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in plain.layers) == 4


def test_land_cover_cnn_stays_within_its_size():
    assert 1_800_000 < models.land_cover_cnn((64, 64, 3), 10).count_params() < 2_000_000


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
def test_models_take_pixels_and_give_probabilities(name, size, tmp_path):
    model = getattr(models, name)((*size, 3), 4)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *size, 3)).astype("float32")
    probabilities = model.predict(pixels, verbose=0)
    assert probabilities.shape == (5, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert all(layer.name.split("_")[-1].isdigit() is False for layer in model.layers)  # no "conv2d_17"

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again.predict(pixels, verbose=0), probabilities)


def test_the_whitening_layer_makes_white_noise_of_patches(monkeypatch):
    from tfproject.models import whitened
    from tfproject.models.whitened import whitened_cnn

    monkeypatch.setattr(whitened, "FLOOR", 5e-4)  # below all directions of these images
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3))
    images = np.repeat(np.repeat(pixels, 4, axis=1), 4, axis=2).astype(np.uint8)  # neighbours alike, as in photos
    model = whitened_cnn((16, 16, 3), 3, images=images, widths=(8, 8, 8))
    whitening = model.get_layer("whitening")
    assert not whitening.trainable and whitening.name not in {v.path.split("/")[0] for v in model.trainable_variables}
    seen = keras.Model(model.inputs, whitening.output).predict(images.astype("float32"), verbose=0).reshape(-1, 24)
    plus, minus = seen[:, :12], seen[:, 12:]
    np.testing.assert_allclose(plus, -minus, atol=1e-4)
    covariance = plus.T @ plus / len(plus)
    strong = np.diag(covariance) > 0.5  # directions in which such images vary much more than the regularisation
    assert strong.sum() >= 3
    np.testing.assert_allclose(covariance[np.ix_(strong, strong)], np.eye(strong.sum()), atol=0.05)
