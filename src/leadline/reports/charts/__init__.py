"""Charts: frames in, Altair charts and their files out; they know no torch and no store."""
