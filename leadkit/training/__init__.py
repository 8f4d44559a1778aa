"""The one training loop, and the pre-training of the miniatures."""
