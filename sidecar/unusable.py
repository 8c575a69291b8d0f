"""What the configuration names and this machine cannot give: the one kind of error for all files but the configuration itself."""


class Unusable(Exception):
    """A file, or what it holds, cannot be used; the text says which and why, and may be shown to the operator."""
