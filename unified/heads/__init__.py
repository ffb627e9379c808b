"""From hidden states to predictions, and from flow times to embeddings."""
