"""Reproduction of the papers: their tables and figures with our own models, and the ledger of measured runs."""
