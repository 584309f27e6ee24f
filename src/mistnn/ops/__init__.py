"""The papers' mathematics: pure functions of tensors. No modules, no files, no configuration."""
