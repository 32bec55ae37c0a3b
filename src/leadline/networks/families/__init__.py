"""The families: one file holds one group of a paper's networks; importing it registers its functions by name."""
