"""Measured side by side with the alternatives; nothing imports it."""
