"""The running program: what is made of the configuration, how it is exchanged, and what operators may ask."""
