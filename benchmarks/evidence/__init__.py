"""What has been measured of the claims and numbers that Leadline is about: docs/evidence.md.

    python -m benchmarks.evidence --runs RUNS --run   # run the studies of claims.yaml, read them, write the page
    python -m benchmarks.evidence --runs RUNS         # read the studies that are finished, write the page
    python -m benchmarks.evidence                     # write the page from what is kept in measured.json

`--run` continues where it stopped. What studies show is kept in `measured.json`, study by study, so that the page can
have those of several machines.
"""
