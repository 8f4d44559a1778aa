"""Collections, passages on disk, tokens and batches."""
