"""From what a study asks to what it runs: specification, expansion, matching, search, rounds."""
