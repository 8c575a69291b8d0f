"""The keys that tokens are verified with: how they come here, how long they are good, and what is kept of them."""
