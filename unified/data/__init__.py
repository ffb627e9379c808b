"""Input: sources of examples, mixtures, and packed batches."""
