"""Open parts: what specifications are made of, members of a kind by name, and references to a user's own code."""
