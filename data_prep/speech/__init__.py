"""Text to speech for data: voices, how one is drawn, and the engines that speak."""
