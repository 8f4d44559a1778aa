"""Records, the paper's numbers, claims, statistics, tables and the report."""
