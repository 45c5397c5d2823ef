"""Weights of every published family: formats, name mappings, strict assignment, downloads, and writing back."""
