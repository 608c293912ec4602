"""Models on disk: saved and loaded strictly, whole files or none, settings as KEY=VALUE; and the bundled models.

Here: formats of models, their cards, weights from elsewhere. Not here: data sets (``data_prep``) and the saves of a
training run (``training/loop``).
"""

if "." not in __name__:
    raise ImportError(f"import duologue.{__name__}, not {__name__}: this folder is a part of the package duologue")
