"""Measures of what a model says and draws, and the pages that show them."""
