"""What a program may not do although every stream has its row: the rules whose breach only the hardware notices.

The machine asks here before it executes. Each rule has a reason in the hardware: a memory row that is read in the
cycle in which it is written, a register that is still on its way, a unit that is still at work. All times are
cycles of the token, of micro-ops.
"""

from __future__ import annotations

from collections.abc import Sequence

from hdl.config import BLOCK, Config
from hdl.isa import Width
from hdl.timing import Timing

from .second_ports import Place, SecondPorts


class MachineError(RuntimeError):
    """A program that uses the machine wrongly: empty stream, issue in the past, address out of range."""


class Hazards:
    """The rules, for one token; ``before``: those of the one before, which took ``cycles``."""

    def __init__(self, cfg: Config, timing: Timing, before: Hazards | None = None, cycles: int = 0):
        self.cfg, self.t = cfg, timing
        self._defined = {"R[0]"}
        self._changing: dict[tuple[str, int], tuple[int, int]] = {}
        ports_before: SecondPorts | None = before._second_ports if before else None
        self._second_ports: SecondPorts = SecondPorts(timing, ports_before, cycles)
        # The last K or V vector: cycle of its last row, rows, cycles between those that leave the SXM.
        self._kv: tuple[int, int, int] | None = None
        if before is not None and before._kv is not None:
            self._kv = before._kv[0] - cycles, *before._kv[1:]
        self._scalars: dict[tuple[int, int], int] = {}
        self._squares: list[int] = []
        self._experts: dict[int, list[tuple[int, int]]] = {}
        self._inserted: tuple[int, bool] | None = None
        self._emitting = False
        self._noise_from = timing.top_noise
        self._step = 0
        self._chosen: dict[int, int] = {}
        self._gathered = 0
        self._gather: tuple[int, tuple[Width, int]] | None = None

    # What holds a value in this token ------------------------------------------------------------------

    def define(self, what: str) -> None:
        """``what`` has a value from now on."""
        self._defined.add(what)

    def need(self, what: str, cycle: int) -> None:
        """``what`` is read: nothing is kept from token to token but the memories."""
        if what not in self._defined:
            raise MachineError(f"cycle {cycle}: {what} is read, but has no value in this token yet")

    # Memories ------------------------------------------------------------------------------------------

    def kv_row(self, cycle: int, index: int) -> None:
        """A row of a K or V vector comes: not to where one of the vector before is still kept."""
        if self._kv is not None:
            end, rows, pace = self._kv
            if index < rows and cycle <= end + index * pace:
                raise MachineError(f"cycle {cycle}: SXM: row {index} of a vector comes before the last one's has left")

    def kv_written(self, cycle: int, places: Sequence[Place], table: str, row: int) -> None:
        """The last of a K or V vector's rows comes in ``cycle``; they go to ``places`` and a row of a table, of
        scales if it is K."""
        rows, value = len(places), table == "coef"
        if rows * self.cfg.vlanes > self.cfg.head_max:
            raise MachineError(f"cycle {cycle}: SXM: a vector of {rows} rows is longer than {self.cfg.head_max}")
        if self._kv is not None and cycle < self._kv[0] + self._kv[1] * self._kv[2]:
            raise MachineError(f"cycle {cycle}: SXM: a vector ends before the one before it is written")
        pace = self.t.value_pace if value else 1
        self._kv = cycle, rows, pace
        if self.cfg.ecc and (problem := self._second_ports.problem(cycle, value, places)):
            raise MachineError(f"cycle {cycle}: {problem}")
        done = cycle + self.t.sxm_kv + (rows - 1) * pace + 1
        # Superlane s reads s cycles later than superlane 0, whose time the latency means.
        for _, word in places:
            self._changing["weight", word] = cycle + self.t.sxm_kv + 1 - self.cfg.vlanes, done
        # The exponent goes there at once, the rows by the tile's write registers.
        self._changing[table, row] = cycle + self.t.sxm_kv - self.t.kv_write + 1, done

    def read(self, memory: str, row: int, cycle: int) -> None:
        """A weight word, or a row of the scale or coefficient memory, is read."""
        window = self._changing.get((memory, row))
        if window is not None and window[0] <= cycle < window[1]:
            raise MachineError(f"cycle {cycle}: {memory}[{row}] is read while K or V is written to it")

    # Scalar unit ---------------------------------------------------------------------------------------

    def scalar_written(self, cycle: int, due: int, dst: int) -> None:
        """A result for R[dst] stands at ``due``."""
        if (due, dst) in self._scalars and dst:
            raise MachineError(f"cycle {cycle}: SFU: two results for R[{dst}] in cycle {due}")
        self._scalars[due, dst] = cycle

    def squared(self, cycle: int) -> None:
        """A block of a sum of squares is complete."""
        self._squares = [c for c in self._squares if cycle < c + self.t.sxm_sumsq] + [cycle]

    def sumsq_read(self, cycle: int) -> None:
        """RSQRT. In less than a block a cycle, the sum is anything while blocks are added."""
        self.need("SUMSQ", cycle)
        if self.cfg.square_lanes < BLOCK and any(c < cycle < c + self.t.sxm_sumsq for c in self._squares):
            raise MachineError(f"cycle {cycle}: SFU: SUMSQ is read while it is formed")

    # Top-k unit ----------------------------------------------------------------------------------------

    def insert(self, cycle: int, first: bool, last: bool, noise: bool, noisy: bool) -> None:
        """A row enters the lists; ``noise`` by its instruction, ``noisy``: the host asked for it."""
        if first and self._inserted is not None:
            late = self.t.top_insert_noise - self.t.top_insert
            if self._inserted[1] and not noise and cycle <= self._inserted[0] + late:
                raise MachineError(f"cycle {cycle}: TOP.INSERT meets rows with noise of the one before")
        self._inserted = cycle, noise
        self._emitting = False
        if noisy:
            self._take_noise(cycle, first, last)

    def emit(self, cycle: int, first: bool, last: bool, sampling: int | None, noisy: bool, ready: bool) -> None:
        """A step of EMIT; ``sampling``: for which sequence, if any; ``ready``: there is something left to take."""
        if self._inserted is None:
            raise MachineError(f"cycle {cycle}: TOP.EMIT without an INSERT")
        if first:
            if self._emitting:
                raise MachineError(f"cycle {cycle}: TOP.EMIT: the lists were emitted already")
            wait = self.t.top_insert_noise if self._inserted[1] else self.t.top_insert
            if cycle < self._inserted[0] + wait:
                raise MachineError(f"cycle {cycle}: TOP.EMIT comes before the last row has entered")
        elif cycle < self._step + self.t.top_step:
            raise MachineError(f"cycle {cycle}: TOP.EMIT steps are less than {self.t.top_step} cycles apart")
        if first and not ready:
            raise MachineError(f"cycle {cycle}: TOP.EMIT of empty lists")
        self._emitting, self._step = True, cycle
        if sampling is not None and last:
            self._chosen[sampling] = cycle
        if noisy:
            self._take_noise(cycle, first, last)

    def _take_noise(self, cycle: int, first: bool, last: bool) -> None:
        if first and cycle < self._noise_from:
            raise MachineError(f"cycle {cycle}: TOP takes noise that is ready from {self._noise_from} on")
        if last:
            self._noise_from = cycle + self.t.top_noise

    def choose(self, cycle: int, index: int, expert: int, layer: int) -> None:
        """An expert is chosen."""
        if index >= self.cfg.experts_per_token_max:
            raise MachineError(f"cycle {cycle}: TOP.EMIT of {index + 1} experts")
        if expert >= self.cfg.experts_max:
            raise MachineError(f"cycle {cycle}: TOP.EMIT: expert {expert} of {self.cfg.experts_max}")
        self._experts.setdefault(index, []).append((cycle + self.t.top_emit, layer))

    def expert_used(self, cycle: int, index: int, layer: int) -> None:
        """A base register of an expert is added to an address; it holds the layer's base as of its choice, until the
        next one's is ready."""
        if index not in self._experts:
            raise MachineError(f"cycle {cycle}: expert {index} is used, but none is chosen in this token yet")
        known = [choice for choice in self._experts[index] if choice[0] <= cycle]
        if not known:
            ready = self._experts[index][0][0]
            raise MachineError(f"cycle {cycle}: expert {index} is used, its base is ready from {ready} on")
        self._experts[index] = self._experts[index][len(known) - 1 :]
        chosen_in = known[-1][1]
        if layer != chosen_in:
            raise MachineError(f"cycle {cycle}: expert {index} is used in layer {layer}, chosen in {chosen_in}")

    # The token's end -----------------------------------------------------------------------------------

    def state_used(self, cycle: int, end: int) -> None:
        """A micro-op that uses the token's id, slot or number of keys; ``end``: the token's cycles, 0 before."""
        if end and cycle >= end:
            raise MachineError(f"cycle {cycle}: the run state of a token that ended in cycle {end - 1} is used")

    def gathered(self, cycle: int, width: Width, sequence: int) -> None:
        """GATHER: superlane after superlane looks at the token's id; width and sequence are the last GATHER's."""
        if self._gather is not None:
            before, (width_before, sequence_before) = self._gather
            if width is not width_before and cycle < before + self.t.gather - 3:
                raise MachineError(f"cycle {cycle}: GATHER of another width while a row is gathered")
            if sequence != sequence_before and cycle < before + self.t.gather_other:
                raise MachineError(f"cycle {cycle}: GATHER of another sequence while a row is gathered")
        self._gather = cycle, (width, sequence)
        self._gathered = cycle + self.t.gather - 1

    def ended(self, end: int, sampled: int) -> None:
        """The token ends: cycle ``end`` is the next one's first; ``sampled``: sequences that are sampled after it."""
        if self._gathered > end:
            raise MachineError(f"the token ends in cycle {end - 1}, its row is gathered until {self._gathered - 1}")
        for sequence in range(sampled):
            if sequence not in self._chosen:
                raise MachineError("a token is sampled after this one, but there was no sampling TOP.EMIT")
            ready = self._chosen[sequence] + self.t.top_sample + self.t.token
            if end < ready:
                raise MachineError(f"the token ends in cycle {end - 1}, its sample needs it to last until {ready - 1}")
