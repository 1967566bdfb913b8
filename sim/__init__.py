"""Models of the LPU: bit-exact numerics, the instruction-level machine, the float oracle and the RTL itself
in Verilator."""
