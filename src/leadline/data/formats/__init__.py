"""File formats: idx, pickled batches, image files and folders, read and checked."""
