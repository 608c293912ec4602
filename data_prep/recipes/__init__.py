"""The recipes of ``duologue prepare``, one file each: a frozen config and the function that writes the data set."""
