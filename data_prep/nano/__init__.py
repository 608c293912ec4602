"""nano's grammar: its kinds of questions, its vocabulary; wordings, small talk and facts, as TOML, in ``tables/``.

Here: all that is true of nano alone. Nothing outside this folder and ``training/presets`` imports it; a recipe or a
suite reaches it by name.
"""
