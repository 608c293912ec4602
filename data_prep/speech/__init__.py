"""Speech for data: text to speech (voices, how one is drawn, the engines that speak), how high a voice is, and
recordings said by another voice or in another manner."""
