"""The edges: the command line, the terminal client, the voice-chat page, a Gradio app."""

if "." not in __name__:
    raise ImportError(f"import duologue.{__name__}, not {__name__}: this folder is a part of the package duologue")
