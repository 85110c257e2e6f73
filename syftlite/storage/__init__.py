"""Disk: tokens, journals, datasets. The engine reaches it only through what it is given."""
