"""Recipes: one module per family of models, each with build, loss, counts, inputs and evaluate."""
