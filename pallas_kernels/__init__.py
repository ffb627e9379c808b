"""Kernels that stand alone: each folder is one operation, and imports nothing of `unified`."""
