"""Differential privacy: samplers, mechanisms, what they cost, budgets. Pure: it knows no worker."""
