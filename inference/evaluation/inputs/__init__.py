"""What a suite asks: scripted scenes, sets of speech, outputs of other systems."""
