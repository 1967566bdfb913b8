"""Bench of the echo design: proves that the matrix builds, runs, seeds and reports in both simulators."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from verification.context import context


async def _start(dut: Any) -> None:
    dut.rx__valid.value = 0
    dut.tx__ready.value = 0
    dut.bias.value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, "ns").start()
    for _ in range(2):
        await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test(timeout_time=100, timeout_unit="us")
async def answers_under_back_pressure(dut: Any) -> None:
    """Every byte is answered in order while both sides pause at random."""
    ctx = context()
    rng = ctx.rng()
    data = [int(byte) for byte in rng.integers(0, 256, 200)]
    # Asked for by the test of the runner itself, which must see this bench fail.
    wrong = int(bool(ctx.params.get("fail")))
    await _start(dut)
    sent: list[int] = []
    answers: list[int] = []
    while len(answers) < len(data):
        await FallingEdge(dut.clk)
        offer = len(sent) < len(data) and rng.random() < 0.7
        dut.rx__valid.value = int(offer)
        dut.rx__payload.value = data[len(sent)] if offer else 0
        dut.tx__ready.value = int(rng.random() < 0.6)
        # rx.ready depends on tx.ready: look once the inputs have settled, just before the edge samples them.
        await Timer(4, "ns")
        if offer and int(dut.rx__ready.value):
            sent.append(data[len(sent)])
        if int(dut.tx__valid.value) and int(dut.tx__ready.value):
            answers.append(int(dut.tx__payload.value))
    assert answers == [(byte + i + wrong) % 256 for i, byte in enumerate(data)]
    assert int(dut.count.value) == len(data)


@cocotb.test()
async def knows_its_run(dut: Any) -> None:
    """The parameters of the run reach the bench."""
    ctx = context()
    assert ctx.bench == "selftest"
    assert ctx.config.name == ctx.config_name
    assert os.environ["COCOTB_RANDOM_SEED"] == str(ctx.seed)
    await _start(dut)
