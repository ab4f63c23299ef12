"""Other libraries' names and semantics on our core: change one import, and keep the rest of the program."""
