"""House numbers: SVHN, its crops, and numbers on made-up backgrounds."""
