"""Speech synthesisers, one file each. An engine takes a text and a voice and returns samples."""
