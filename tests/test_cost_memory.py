import keras
import pytest
from keras import layers as L

from tfproject import cost, models
from tfproject.errors import UserError

MIB = 2**20


@pytest.mark.parametrize("batch_size", [32, 128])
def test_prediction_is_within_15_percent_of_what_is_measured(batch_size):
    model = models.custom_cnn((32, 32, 3), 10)
    measured = cost.measured_training_memory(model, batch_size, steps=4)
    assert cost.peak_training_memory(model, batch_size).total == pytest.approx(measured["bytes"], rel=0.15)
    assert len(measured["steps"]) == 4 and measured["process_bytes"] > 0


def chain(layers, batch_norm=False):
    image = keras.Input((32, 32, 32))
    x = image
    for _ in range(layers):
        x = L.Conv2D(32, 3, padding="same")(x)
        if batch_norm:
            x = L.BatchNormalization()(x)
    return keras.Model(image, x)


def test_parts_of_a_prediction():
    unit = 8 * 32 * 32 * 32 * 4  # bytes of a feature map
    memory = cost.peak_training_memory(chain(4), 8, "sgd")
    assert memory.batch == unit and memory.optimizer == 0
    # As the backward pass begins: three convolutions' outputs, and the gradients of the last one's output and input.
    assert memory.kept == 3 * unit and memory.transient == 2 * unit
    assert memory.moment.startswith("backward through conv2d")
    assert memory.total == sum(
        memory.to_json()[k] for k in ("parameters", "optimizer", "batch", "kept", "gradients", "transient", "rounding")
    )
    with_norm = cost.peak_training_memory(chain(4, batch_norm=True), 8, "sgd")
    assert with_norm.kept == pytest.approx(7 * unit, rel=0.01) and with_norm.transient == 4 * unit


def test_sums_keep_nothing_and_share_their_gradient():
    def network(add):
        image = keras.Input((32, 32, 32))
        x = L.Conv2D(32, 1)(image)
        y = L.Conv2D(32, 1)(x)
        return keras.Model(image, L.Conv2D(32, 1)(L.Add()([x, y]) if add else y))

    unit = 8 * 32 * 32 * 32 * 4
    plain, residual = (cost.peak_training_memory(network(add), 8, "sgd") for add in (False, True))
    assert plain.kept == residual.kept == 2 * unit
    assert residual.transient == 2 * unit  # the sum's gradient is both its terms'


def test_many_parameters_are_at_their_peak_when_the_optimiser_steps():
    model = keras.Sequential([keras.Input((1024,)), *(L.Dense(1024, use_bias=False) for _ in range(4))])
    layer = 1024 * 1024 * 4
    memory = cost.peak_training_memory(model, 1, "adam")
    assert memory.moment == "optimiser's step"
    assert (memory.parameters, memory.gradients, memory.optimizer) == (4 * layer, 4 * layer, 8 * layer)
    assert memory.transient >= 2 * layer
    assert cost.peak_training_memory(model, 1, "sgd").total < memory.total - 8 * layer


def test_frozen_base_saves_its_activations():
    model = models.custom_cnn((32, 32, 3), 10)
    full = cost.peak_training_memory(model, 64).total
    for layer in model.layers[:-3]:
        layer.trainable = False
    assert cost.peak_training_memory(model, 64).total < 0.35 * full


def test_what_cannot_be_measured_is_said():
    @keras.saving.register_keras_serializable("tests")
    class Mine(L.Layer):
        def call(self, x):
            return 2 * x

    image = keras.Input((4,))
    with pytest.raises(UserError, match="could not be measured"):
        cost.measured_training_memory(keras.Model(image, L.Dense(2)(Mine()(image))), 2)
    with pytest.raises(UserError, match="newton"):
        cost.measured_training_memory(keras.Model(image, L.Dense(2)(image)), 2, "newton")
