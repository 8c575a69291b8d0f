"""The admin listener, for operators."""
