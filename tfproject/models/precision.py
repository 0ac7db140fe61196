"""The precision that a network computes in, changed after it was built."""


def in_precision(model, precision):
    """The same network, with the same weights, computing in another precision.

    The layer that makes the output stays in float32, so that probabilities are not rounded to a few digits.

    Args:
        model: a functional model of Keras' own layers.
        precision: a Keras dtype policy: float32, mixed_bfloat16 or mixed_float16.

    Returns:
        A keras.Model of its own.
    """
    new = type(model).from_config(with_policy(model.get_config(), precision, _makers_of_output(model)))
    new.set_weights(model.get_weights())
    for layer in new._flatten_layers():
        if hasattr(layer, "finalize_state"):  # Normalization computes with what it makes of its weights
            layer.finalize_state()
    return new


def with_policy(config, precision, kept=()):
    """A configuration with every dtype policy in it, also of layers inside it, made another.

    Args:
        config: what a layer's or model's `get_config` gives.
        precision: the policy's name.
        kept: names of layers that stay as they are.

    Returns:
        A configuration of its own.
    """
    if isinstance(config, dict):
        if "DTypePolicy" in str(config.get("class_name")):
            return precision
        if "class_name" in config and isinstance(config.get("config"), dict) and config["config"].get("name") in kept:
            return config
        return {key: with_policy(value, precision, kept) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(with_policy(value, precision, kept) for value in config)
    return config


def _makers_of_output(model):
    """The names of the layers whose output is the model's, inside it if it is a model itself."""
    names = set()
    for output in model.outputs:
        maker = output._keras_history.operation
        names |= _makers_of_output(maker) if getattr(maker, "outputs", None) else {maker.name}
    return names
