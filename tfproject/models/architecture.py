"""A network's architecture as text, by which it is known again."""

import collections
import json
import re


def architecture(model):
    """A model's configuration as JSON, the same however many layers without a name Keras has named before.

    Args:
        model: a keras.Model. Names that Keras gave by the layer's class are counted anew, from the first.

    Returns:
        A str.
    """
    config = json.loads(model.to_json())
    names, counts = {}, collections.Counter()

    def gather(value):
        if isinstance(value, dict):
            name = isinstance(value.get("config"), dict) and value["config"].get("name")
            if isinstance(name, str) and name not in names:
                base = re.sub(r"_\d+$", "", name)
                if base.replace("_", "") == str(value.get("class_name")).lower():
                    names[name] = f"{base}_{counts[base]}" if counts[base] else base
                    counts[base] += 1
        if isinstance(value, (dict, list)):
            for part in value.values() if isinstance(value, dict) else value:
                gather(part)

    def renamed(value):
        if isinstance(value, dict):
            return {key: renamed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [renamed(part) for part in value]
        return names.get(value, value) if isinstance(value, str) else value

    gather(config)
    return json.dumps(renamed(config))
