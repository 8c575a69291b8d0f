"""A reverse proxy beside one backend that lets only verified tokens through."""
