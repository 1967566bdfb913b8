"""Latencies, beside nothing but the configuration: the one place where a cycle count is written.

HDL units build their pipelines from these numbers, the scheduler places instructions by them, and
``verification/`` measures that they are true. All are in cycles from the cycle in which a micro-op is
valid at its slice ("at t") to the first cycle in which the named effect can be used by a micro-op that is
valid in that cycle.
"""

from __future__ import annotations

import dataclasses
import functools

from .config import BLOCK, Config
from .isa import Format, VxOp


@dataclasses.dataclass(frozen=True)
class Timing:
    cfg: Config

    # MEM
    mem_read: int = 2
    """SR, XR, CR at t: the row is on its stream in cycle t + 2 (address, array, output register)."""
    xw: int = 2
    """XW at t samples its stream in cycle t; an XR at t + xw reads the new row."""
    table_write: int = 2
    """An exponent of K or V that the SXM writes in cycle c is read by an SR or CR at c + table_write."""

    # MXM
    @property
    def dot(self) -> int:
        """ABC.DOT at t: an ACC at t + dot reads the sum (superlane skew is the same on both sides).

        Weight read 2, register 1, multiplier 2 (input and output registers), tree 2, exponent shift 1, accumulate
        1; one more where the blocks of a word have to be added up. With error correction the register is two:
        syndrome, correction.
        """
        return 9 + self._correction + (1 if self.cfg.blocks > 1 else 0)

    @property
    def _correction(self) -> int:
        """Stages that error correction adds to a read."""
        return 1 if self.cfg.ecc else 0

    @property
    def gather(self) -> int:
        """ABC.GATHER at t: row i of the word (vlanes weights) is on the gather stream in cycle t + gather + i."""
        return 4 + self._correction + self.cfg.skew

    @property
    def gather_other(self) -> int:
        """ABC.GATHER at t: one of the other sequence's token comes at t + gather_other or later."""
        return self.gather - 2

    @property
    def memory_error(self) -> int:
        """ABC at t reads an uncorrectable word: a token whose last cycle is t + memory_error or later is not told
        (the column's register, sums over superlane, tile and the way to the ICU, its register, the decision)."""
        return self.cfg.skew + 8 + self._correction

    # VXM
    @property
    def _drain(self) -> int:
        """Accumulator read and deskew of the superlanes, while SCL * R is formed."""
        return max(self.cfg.skew, 4)

    @property
    def acc(self) -> int:
        """ACC at t samples SCL (and the gather stream) in cycle t; its row is on Y in cycle t + acc."""
        return self._drain + 6

    @property
    def max(self) -> int:
        """Last ACC micro-op of an instruction with max = 1 at t: a VX.EXP at t + max may use MAX."""
        levels = 0 if self.cfg.vlanes == 1 else 1 if self.cfg.vlanes <= 4 else 2
        return self.acc + 1 + 2 * levels

    vx_pass: int = 3
    vx_add: int = 3
    vx_gain: int = 8
    vx_exp: int = 12
    vx_silu: int = 14

    @property
    def rope_pitch(self) -> int:
        """With one lane the elements of a RoPE pair are rows: the second comes at most this long after the first."""
        return 16

    @property
    def vx_rope(self) -> int:
        """Latency of ROPE. With one lane a row waits for the other one of its pair: narrowed 1, written 1, read 1."""
        return 7 if self.cfg.vlanes > 1 else 7 + self.rope_pitch + 1

    def vx(self, op: VxOp) -> int:
        """VX at t samples its source, X and C in cycle t; Z carries the result in cycle t + vx(op).

        SILU: t is the cycle of the second row of a pair.
        """
        return {
            VxOp.PASS: self.vx_pass, VxOp.ADD: self.vx_add, VxOp.GAIN: self.vx_gain,
            VxOp.ROPE: self.vx_rope, VxOp.EXP: self.vx_exp, VxOp.SILU: self.vx_silu,
        }[op]  # fmt: skip

    vx_sum: int = 10
    """Last VX.EXP micro-op at t: an SFU.RECIP at t + vx_sum sees the whole SUM."""


    @property
    def act_write(self) -> int:
        """An activation word written in cycle c is read by an ABC at c - act_write: the tile asks for it a cycle
        after the micro-op (with error correction, two), and the memory forwards what is written a cycle after
        that."""
        return 2 + self._correction

    value_update: int = 7
    """With error correction: cycles from reading the word that a value goes into to writing it back, an odd number
    (``value_pace``). Array and output register 2, choice of the column 1, syndrome and correction 2, check bits 1,
    write register 1."""

    @property
    def kv_write(self) -> int:
        """Cycles a row of K or V, or one that is loaded, spends in the tile's write registers."""
        return 2 + (self.value_update if self.cfg.ecc else 0)

    @property
    def value_pace(self) -> int:
        """Cycles between rows of V that leave the SXM.

        With error correction each takes two turns of its column's second port: its word is read, and written
        ``value_update`` cycles later. Of C columns in turn, C even, each is read in cycles of the same parity, and
        written in those of the other one. A single column takes a row every other cycle.
        """
        return 2 if self.cfg.ecc and self.cfg.superlane_columns == 1 else 1

    # SXM
    @property
    def sxm_act(self) -> int:
        """Micro-op with a word's last row at t: an ABC at t + sxm_act reads the word (the quantiser takes 7
        cycles, but its word is forwarded past both stages of the activation memory)."""
        return 6 + self._row_by_row - self.act_write

    @property
    def _row_by_row(self) -> int:
        """Cycles more for a quantiser that takes a block's rows in turn."""
        return self.cfg.block_rows + 1 if self.cfg.row_quantiser else 0

    @property
    def sxm_sumsq(self) -> int:
        """Last micro-op of a sumsq instruction at t: an SFU.RSQRT at t + sxm_sumsq uses SUMSQ.

        With fewer squares in a cycle than a block has: that many cycles more for the block before and for its own.
        """
        beats = BLOCK // self.cfg.square_lanes
        return 13 + self._row_by_row + (0 if beats == 1 else 1 + 2 * (beats - 1))

    @property
    def sxm_kv(self) -> int:
        """Last row of a K or V vector of g rows at t: the whole vector, its exponent too, is readable by
        ABC / SR / CR at t + sxm_kv + g (one row is written a cycle); V at t + sxm_kv + (g - 1) value_pace + 1."""
        return 7 + self.kv_write

    # SFU
    sfu_rsqrt: int = 9
    """SFU.RSQRT / RECIP / MUL / PROB at t: R[dst] may be used by an ACC or SFU at t + this."""
    sfu_recip: int = 9
    sfu_capture: int = 1
    """SFU.CAPTURE at t: a PROB at t + sfu_capture uses P."""

    @property
    def sfu_mul(self) -> int:
        """Latency of MUL."""
        return self.sfu_recip if self.cfg.scalar_ram else 5

    @property
    def sfu_prob(self) -> int:
        """Latency of PROB."""
        return self.sfu_recip if self.cfg.scalar_ram else 7

    # TOP
    top_insert: int = 3
    """Last INSERT with noise = 0 at t: an EMIT may start at t + top_insert."""
    top_noise: int = 22
    """The first micro-op that takes noise (INSERT with noise = 1, or sampling EMIT: the host's noise mode decides)
    comes at least this long after the position of the token and the noise mode, and after the last one that took
    some: the generator runs ahead of the rows, so that its depth costs no time."""
    top_step: int = 2
    """Cycles between EMIT steps (d1)."""
    top_row: int = 2
    """EMIT step at t: its lane of T (and the count of experts) is usable by a VX at t + top_row."""
    top_emit: int = 5
    """EMIT step at t: a micro-op at t + top_emit may use its expert register (the id leaves the unit, from a
    register, in cycle t + 2, and takes ``expert`` cycles at the ICU)."""
    top_sample: int = 6
    """Last step of a sampling EMIT at t: the next token id stands at t + top_sample, whatever noise the host asked
    for (choice 2, noise, saturation, comparison, the token's register)."""

    @property
    def top_insert_noise(self) -> int:
        """``top_insert`` with noise = 1, whatever noise the host asked for; where there is none, the same."""
        return 5 if self.cfg.noise else self.top_insert

    # ICU
    issue: int = 1
    """An instruction with time t of its phase has its first micro-op valid in cycle t + 1 of the phase."""
    expert: int = 3
    """The id of an expert reaches the ICU in cycle t: a micro-op at t + expert may use its base (half products
    and sum, then the issue)."""
    token: int = 4
    """The id of the next token leaves the top-k unit in cycle t: the token in work may end (its last cycle) at
    t + token - 1 (the id is compared with the stop ids, and that decided upon)."""
    phase_min: int = 7
    """Cycles of the shortest phase: the sequencer works out its end and what follows."""

    def fetch_gap(self, fmt: Format) -> int:
        """Least distance of two issues of one queue: words of the instruction, memory latency, hand-over and the
        comparison of its time.

        Also the earliest issue time after a queue has jumped (start of a token, of the layer loop).
        """
        return fmt.words + 3


@functools.cache
def get_timing(cfg: Config) -> Timing:
    return Timing(cfg)
