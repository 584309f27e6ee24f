"""Networks and their training steps: one folder a paper. No folder imports another's."""
