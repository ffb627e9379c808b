"""State, step, optimizer, input feeding, metrics and checkpoints of a run; knows no model."""
