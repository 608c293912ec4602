"""Speech for data: text to speech (voices, how one is drawn, the engines that speak), and how high a voice is."""
