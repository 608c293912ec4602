"""Better and worse answers to the same question: pairs of them as rows, and losses that tell them apart."""
