"""The LPU core in Amaranth, and the contract (config, isa, timing, image) that everything else imports."""
