"""The half that gives out tokens: API keys, keys of our own, what they sign, and the paths at which we answer."""
