"""Hooks: the method names that syftlite adds to other libraries' classes."""
