"""How good a model is, how sure of itself, and what it says about new images."""

from tfproject.evaluation.prediction import Predictions, find_images, predict_files
from tfproject.evaluation.scores import Scores, bootstrap, evaluate, scores, summary_text

__all__ = [
    "Predictions",
    "Scores",
    "bootstrap",
    "evaluate",
    "find_images",
    "predict_files",
    "scores",
    "summary_text",
]
