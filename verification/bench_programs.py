"""Random programs in lockstep: every micro-op, row and write of whole tokens, each in its cycle."""

from __future__ import annotations

import itertools
from typing import Any

import cocotb
from cocotb.task import bridge

from firmware.link import Record
from firmware.schedule import token_cycles
from hdl.image import Param, Reason, Space
from hdl.isa import IsaError
from sim.hazards import MachineError
from sim.machine import Machine
from verification.context import Context, context
from verification.device import START_CYCLES, Device, Session
from verification.directed_program import DirectedGenerator
from verification.lockstep import Lockstep, TracedMachine, event_ports
from verification.program_memory import Part
from verification.random_program import RandomProgram, random_program
from verification.rules import RULES, program

RESETS = 6
"""Resets in runs of one program."""
QUIET = 40
"""Cycles behind a reset in which nothing may move."""


async def start(dut: Any) -> Session:
    """A core out of reset, with a driver."""
    device = Device(dut)
    await device.start()
    return Session(device)


async def compare(session: Session, program: RandomProgram, replay: str) -> Lockstep | None:
    """Loads a program into core and machine and runs both; raises AssertionError at the first difference.

    None where coverage is sampled and the program would add nothing: then only the machine has run.
    """
    device, driver = session.device, session.driver
    sampler = context().sampler
    machine = TracedMachine(program.cfg, sampler)
    program.load(machine)
    tokens = machine.finish()
    if sampler and not sampler.worthwhile:
        return None
    starts = machine.record.starts
    cycles = [b - a for a, b in itertools.pairwise(starts)]

    device.watch = None
    await bridge(lambda: driver.load(program.all_parts()))()
    lockstep = Lockstep(device.dut, machine.record, START_CYCLES, replay)
    device.watch = lockstep.watch
    records, reason = await run(session)
    await device.wait(lambda: lockstep.done)  # what is under way behind the last token
    device.watch = None
    assert [r.cycles for r in records] == [c for c in cycles for _ in range(machine.sequences)], (
        f"cycles of the tokens\n{replay}"
    )
    assert [r.token for r in records if r.sampled] == tokens, f"tokens\n{replay}"
    assert reason is machine.reason, f"{reason} instead of {machine.reason}\n{replay}"
    assert lockstep.done, f"{lockstep.compared} of {machine.record.cycles} cycles compared\n{replay}"
    assert not device.dut.fault.value, f"an instruction missed its issue cycle\n{replay}"
    if sampler:
        sampler.commit()
    return lockstep


async def run(session: Session) -> tuple[list[Record], Reason | None]:
    """A run of what is loaded: its records, and why it ended."""

    def work() -> tuple[list[Record], Reason | None]:
        started = session.driver.start()
        return list(started), started.reason

    return await bridge(work)()


@cocotb.test()
async def programs_run_as_in_the_machine(dut: Any) -> None:
    """``count`` programs, with ``directed`` such that look for corners; ``program``: only the one of this number."""
    ctx = context()
    only = ctx.params.get("program")
    session = await start(dut)
    refused: list[str] = []
    results = cycles = skipped = 0
    for i in range(ctx.params["count"]) if only is None else [only]:
        kind = DirectedGenerator if ctx.params.get("directed") else None
        program, reasons = random_program(
            ctx.config, ctx.rng(i), long=bool(ctx.params.get("long", False)), generator=kind
        )
        refused += reasons
        done = await compare(session, program, f"replay: {ctx.replay(program=i)}")
        if done is None:
            skipped += 1
            continue
        results, cycles = results + done.checks, cycles + done.compared
        instructions = sum(len(code) for code in program.program.code.values())
        ctx.tell(**{"programs": 1, "cycles compared": done.compared, "results compared": done.checks})
        dut._log.info("program %d: %d instructions, %d cycles equal", i, instructions, done.compared)
    done_text = f"{results} results equal in {cycles} cycles"
    dut._log.info("seed %d: %s; %d programs reach nothing new; refused: %s", ctx.seed, done_text, skipped, refused)


@cocotb.test()
async def rules_hold_at_their_limits(dut: Any) -> None:
    """What the machine refuses a cycle earlier runs equal: the limits are those of the hardware."""
    ctx = context()
    if not _thorough(ctx) or not ctx.params.get("rules", True) or ctx.params.get("program") is not None:
        return
    session = await start(dut)
    for name in RULES:
        limit, _ = program(ctx.config, name, 0)
        await compare(session, limit, f"rule {name}; replay: {ctx.replay()}")


@cocotb.test()
async def corrupted_programs_end(dut: Any) -> None:
    """Flipped bits in instruction words: equal where the machine runs it; else the run ends when it must.

    Time is the sequencer's, whatever the queues do. Behind a program that the machine refuses the core is reset: a
    queue may still be repeating.
    """
    ctx = context()
    only = ctx.params.get("program")
    session = await start(dut)
    equal = refused = 0
    count = ctx.params.get("corrupted", 0) if _thorough(ctx) else 0
    for i in range(count) if only is None else [only]:
        rng = ctx.rng(1 << 20, i)
        whole, _ = random_program(ctx.config, rng)
        broken = whole.corrupted(rng, int(rng.integers(1, 4)))
        replay = f"replay: {ctx.replay(program=i)}"
        machine = Machine(ctx.config)
        broken.load(machine)
        try:
            for _ in machine.run():
                pass
        except (IsaError, MachineError) as error:
            await _ends(session, broken, f"{error}\n{replay}")
            session = await _again(session)
            refused += 1
        else:
            await compare(session, broken, replay)
            equal += 1
        await compare(session, whole, replay)
    dut._log.info("seed %d: %d corrupted programs equal, %d refused and ended", ctx.seed, equal, refused)
    ctx.tell(**{"corrupted programs run equal": equal, "corrupted programs refused, and ended in their time": refused})


@cocotb.test()
async def a_reset_ends_everything(dut: Any) -> None:
    """Reset for one cycle, at any time of a run: nothing moves behind it, and what is loaded then runs equal."""
    ctx = context()
    rng = ctx.rng(1 << 21, ctx.params.get("program") or 0)
    session = await start(dut)
    device = session.device
    events = [getattr(dut, f"probe_{name}") for name in event_ports(ctx.config)]
    silent = [*events, dut.probe_running, dut.busy, dut.tx__valid, dut.error, dut.fault, dut.has_image]

    def quiet(cycle: int) -> None:
        moving = [handle._name for handle in silent if not handle.value.is_resolvable or int(handle.value)]
        assert not moving, f"cycle {cycle}, behind a reset: {', '.join(moving)}\nreplay: {ctx.replay()}"

    whole, _ = random_program(ctx.config, rng)
    machine = Machine(ctx.config)
    whole.load(machine)
    cycles = sum(record.cycles for record in machine.run())
    image = (int(Space.PARAM), 0, int(Param.IMAGE), (77).to_bytes(8, "little"))
    for i in range(RESETS + 1):
        # What lies in memories stays. The last run begins with an instruction that comes too early.
        parts = [p for p in whole.all_parts() if i == 0 or p[0] in (Space.PARAM, Space.PROMPT)]
        late = i == RESETS
        await bridge(session.driver.load)([*parts, *(_too_early(whole) if late else ()), image])
        await bridge(session.driver.start)()
        await device.wait(lambda: bool(dut.probe_running.value))
        if late:  # noticed at the end of its phase
            await device.wait(lambda: bool(dut.fault.value), 2 * cycles)
        else:
            await device.wait(lambda: False, int(rng.integers(cycles)))
        assert (bool(dut.fault.value), bool(dut.has_image.value)) == (late, True)
        await device.reset(1)
        device.watch = quiet
        await device.wait(lambda: False, QUIET)
        device.watch = None
        session = Session(device)
    await compare(session, whole, f"behind a reset; replay: {ctx.replay()}")
    dut._log.info("seed %d: %d resets in runs of %d cycles", ctx.seed, RESETS, cycles)


def _thorough(ctx: Context) -> bool:
    """Whether this simulator runs what takes many loads: Icarus only does in `make regress`."""
    return ctx.params.get("thorough", "") in ("all", ctx.sim)


async def _ends(session: Session, broken: RandomProgram, why: str) -> None:
    """A run of a program that no machine runs: every token takes the cycles that its phases say."""
    p = broken.params
    await bridge(lambda: session.driver.load(broken.all_parts()))()
    records, reason = await run(session)
    phases, each = broken.program.phases, 1 + (p[Param.SEQUENCES] == 2)
    first = min(p[Param.PROMPT_LEN], p[Param.PROMPT_LEN1] if each == 2 else p[Param.PROMPT_LEN]) - 1
    positions = [i // each for i in range(len(records))]
    promised = [
        token_cycles(broken.cfg, phases, p[Param.LAYERS], p[Param.WINDOW], p[Param.FLOOR], i, i >= first)
        for i in positions
    ]
    assert [r.cycles for r in records] == promised, f"cycles of the tokens: {why}"
    assert reason in (Reason.LIMIT, Reason.CONTEXT), f"{reason}: {why}"
    status = await bridge(session.driver.status)()
    assert not status.busy, why


def _too_early(whole: RandomProgram) -> list[Part]:
    """The program of a queue that is used in the first phase, its first instruction at a time when none is fetched.

    One that is used in the second, too, where there is any: else the instruction may issue there, and nobody tells."""
    first, second = whole.program.phases[:2]
    used = first.queues & second.queues or first.queues
    space, sub, address, data = next(p for p in whole.parts if p[0] == Space.PROGRAM and used >> p[1] & 1)
    # The time is the lowest field.
    time = (1 << whole.cfg.time_bits) - 1
    word = int.from_bytes(data[:5], "little") & ~time
    return [(space, sub, address, word.to_bytes(5, "little") + data[5:])]


async def _again(session: Session) -> Session:
    """A driver on the core, reset."""
    await session.device.reset()
    return Session(session.device)
