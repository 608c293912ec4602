"""From encoder frames to embeddings of the language model; one file for each kind of adaptor."""
