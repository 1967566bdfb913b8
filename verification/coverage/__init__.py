"""Coverage: what the benches reached in lockstep, and which lines and bits of the Verilog moved.

    python -m verification.coverage --minutes 30 --seed 1
"""
