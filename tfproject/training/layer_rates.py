"""Discriminative learning rates: layers near the image learn more slowly than those near the output."""

import fnmatch


def rates_by_depth(groups, decay=2.6, last=None):
    """Learning-rate factors that fall from the output to the image.

    Args:
        groups: names of layers, from the image to the output; `*` stands for anything ("block4_*").
        decay: what one group's factor is divided by for the next one nearer to the image.
        last: the last group's factor; None for 1 / decay. The new layers, which are in no group, have 1.

    Returns:
        A tuple of (name, factor) for `Recipe.layer_rates`.

    Reference: J. Howard and S. Ruder 2018, "Universal Language Model Fine-tuning", section 3.2, whose factor is 2.6.
    """
    last = 1 / decay if last is None else last
    return tuple((name, last * decay ** (i - len(groups) + 1)) for i, name in enumerate(groups))


def scale_rates(model, rates):
    """Multiply the learning rate of some layers, in the optimiser of a compiled model; weight decay goes with it.

    Args:
        model: compiled, its optimiser built; any optimiser of `tfproject.training.optimization`.
        rates: (name, factor) pairs; a name may hold `*`. The first that fits a layer counts; what none fits has 1.

    Raises:
        UserError: if a name fits no layer with weights that are trained.
    """
    from tfproject.models import freezing  # TensorFlow takes seconds to import; rates are known without it

    # Under mixed_float16 Keras wraps the optimiser in one that scales the loss.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    trained = {name: layer.trainable_variables for name, layer in freezing.layers_in(model)}
    trained = {name: variables for name, variables in trained.items() if variables}
    for pattern, _ in rates:
        if not fnmatch.filter(trained, pattern):
            raise freezing.no_such_layer(model, pattern, trained)
    factors = {}
    for name, variables in trained.items():
        factor = next((factor for pattern, factor in rates if fnmatch.fnmatchcase(name, pattern)), 1.0)
        factors |= {optimizer._var_key(variable): factor for variable in variables}

    # Keras has one learning rate for all; both places where it is used are given the layer's own.
    step, decay, weight_decay = optimizer.update_step, optimizer._apply_weight_decay, optimizer.weight_decay

    def update_step(gradient, variable, learning_rate):
        return step(gradient, variable, learning_rate * factors[optimizer._var_key(variable)])

    def apply_weight_decay(variables):
        if weight_decay:
            for factor in sorted(set(factors.values())):
                optimizer.weight_decay = weight_decay * factor
                decay([v for v in variables if factors[optimizer._var_key(v)] == factor])
            optimizer.weight_decay = weight_decay

    optimizer.update_step, optimizer._apply_weight_decay = update_step, apply_weight_decay
