"""Tensors whose value is elsewhere, and the workers' faces."""
