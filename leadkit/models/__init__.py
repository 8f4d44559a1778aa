"""Encoders, and the three retrievers that answer a batch with layer scores."""
