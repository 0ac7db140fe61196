"""Predicted and measured peak memory of a training step of the course's custom CNN, at several batch sizes.

Measured in a process of its own each, as `cost.measured_training_memory` says.
"""

import argparse

import machine

from tfproject import cost, models


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--optimizer", default="adam")
    arguments = parser.parse_args()
    model = models.custom_cnn((32, 32, 3), 10)
    rows = []
    for batch_size in arguments.batches:
        predicted = cost.peak_training_memory(model, batch_size, arguments.optimizer)
        measured = cost.measured_training_memory(model, batch_size, arguments.optimizer, steps=6)
        rows.append({
            "batch_size": batch_size, "predicted_bytes": predicted.total, "measured_bytes": measured["bytes"],
            "predicted_to_measured": round(predicted.total / measured["bytes"], 3), "steps_bytes": measured["steps"],
            "process_bytes": measured["process_bytes"], "prediction": predicted.to_json(),
        })  # fmt: skip
    worst = max(abs(row["predicted_to_measured"] - 1) for row in rows)
    machine.write(
        "training_memory",
        {"network": model.name, "optimizer": arguments.optimizer, "batches": rows, "worst_error": round(worst, 3),
         "machine": machine.describe()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
