"""The commands: what each one reads from the command line, and what only one of them needs."""
