"""Hyperparameter search for activations, slopes, BatchNorm placement, init and learning rate."""

__version__ = "0.1.0"
