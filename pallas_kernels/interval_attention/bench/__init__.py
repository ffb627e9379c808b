"""What the kernels cost: `__main__.py` for TPUs, `gpu.py` for GPUs. No kernel imports it."""
