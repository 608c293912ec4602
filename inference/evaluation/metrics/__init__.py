"""From judged rows to metrics, with confidence intervals."""
