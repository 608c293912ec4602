"""The neural codecs: samples to codes and back, WavTokenizer's and EnCodec's parts, and the causal nano-codec."""
