"""Runs: dense search, re-ranking, BM25, hard negatives, measures."""
