"""Unified multimodal models in JAX: one network that reads and generates text and images."""

__version__ = "0.1.0"
