"""Tokenizers: what a token of each modality is."""
