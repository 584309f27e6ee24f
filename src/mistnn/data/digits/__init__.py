"""Digits: their sources, and the images composed of them."""
