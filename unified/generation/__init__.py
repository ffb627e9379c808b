"""Loops that turn callables into text and pictures; they know no model."""
