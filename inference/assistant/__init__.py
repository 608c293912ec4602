"""A question in, a reply out: the assistant, its turns, the loading of a model, transcription."""
