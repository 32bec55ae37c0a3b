"""What a study shows: statistics of arrays, verdicts that are drawn from them, diagnostics of what probes measured."""
