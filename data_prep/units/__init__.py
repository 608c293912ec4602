"""Speech units: features, their clusters, codes of a codec, and how good units are."""
