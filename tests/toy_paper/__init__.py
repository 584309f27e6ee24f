"""A toy paper's three files, which tests/test_new_paper.py adds to a copy of the package."""
