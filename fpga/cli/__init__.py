"""Commands of ``lpu`` that make or change bitstreams."""
