"""The keys that verify tokens: how they are fetched, how long they are trusted, and where they are saved."""
