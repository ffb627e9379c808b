"""Weights in and out: released folders now, published checkpoints by a map of names."""
