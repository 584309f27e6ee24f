"""Modules that two or more papers share, and what a network that finds objects provides."""
