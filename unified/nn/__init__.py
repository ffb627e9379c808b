"""Layers: parameters, norms, positions, attention projections, MLPs and the blocks made of them."""
