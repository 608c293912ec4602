"""The parts of a speech language model, as nn.Modules, and the streaming contract that they keep.

Here: what computes on tensors, its config, and its state. Not here: files, recordings, losses, anything that trains,
samples a whole reply for a user, or knows of a server. It imports nothing of Duologue's but itself.
"""

if "." not in __name__:
    raise ImportError(f"import duologue.{__name__}, not {__name__}: this folder is a part of the package duologue")
