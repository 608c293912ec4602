"""What happens to the microphone's samples before the model: echo, loudness, is somebody speaking, segments."""
