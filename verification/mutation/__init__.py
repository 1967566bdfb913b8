"""Tests of the tests: small mistakes put into the hardware and its arithmetic, which the suites have to notice."""
