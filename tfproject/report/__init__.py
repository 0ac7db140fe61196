"""Figures and pages: told what to draw, they know nothing of models and training."""
