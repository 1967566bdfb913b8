"""cocotb benches and the runner that takes each of them through Verilator and Icarus Verilog."""
