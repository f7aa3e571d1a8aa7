"""The history of runs: named, tagged, listed, compared, thrown away, exported."""
