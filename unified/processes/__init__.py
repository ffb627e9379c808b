"""Generative processes: how a target is corrupted, predicted and sampled, as pure functions."""
