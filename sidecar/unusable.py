"""What the configuration names and this machine cannot give: the one kind of error for all files but the configuration itself."""


class Unusable(Exception):
    """A file, or what it holds, cannot be used; the text says which and why, and may be shown to the operator."""


def unforeseen(error: Exception) -> str:
    """What is said of something that failed in a way that nobody thought of. Its own text may quote what was read."""
    return (
        f"cannot be used, by a fault of the sidecar ({type(error).__name__}); take back the last change, and report it"
    )
