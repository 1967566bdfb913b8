"""Board tops, clocks, build and report, with open tools only."""
