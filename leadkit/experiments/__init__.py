"""Stages, distillation methods, the paper's pipeline and tables, PROD, MTA4DPR, sweeps."""
