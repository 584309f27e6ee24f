"""House numbers: SVHN's photographs, crops around its numbers, and tight views of numbers on generated backgrounds."""
