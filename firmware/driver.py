"""Talks to an LPU over any transport: load an image, start a run, take the tokens.

Requests carry sequence numbers and are repeated until they are acknowledged; the LPU carries each out once,
in order. Token records have an index, and a gap is asked for again. So on a line that loses and damages
bytes the answers are late, never wrong: no token is lost or repeated.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from firmware.check import check_program
from firmware.errors import DamagedMemoryError, LpuError
from firmware.link import (
    DELIMITER,
    Frame,
    FrameDecoder,
    Info,
    LinkError,
    Part,
    Record,
    Status,
    done_payload,
    load_payloads,
    tokens_payload,
)
from firmware.scalar import scalar_row
from firmware.transport import Transport
from hdl import link
from hdl.config import Config
from hdl.contract import contract_hash
from hdl.image import PROMPT_BITS, Param, Reason, Space, row_bytes
from hdl.link import Fault, Reply, Request

if TYPE_CHECKING:
    from firmware.image_file import Image, ImageSection

TEMPERATURE_MIN, TEMPERATURE_MAX = 0.01, 100.0
"""Beyond these, logits divided by T would leave their 32 bits, or all be alike."""
UNUSED_STOP = 1 << 31
STOP_IDS_MAX = 2
TEMPERATURE_SCALAR = 1
"""Address of 1/T among the scalar constants."""


class Run(Iterator[Record]):
    """Records of a run as they come; when they end, ``reason`` says why.

    A record is one token processed: those of the prompt, the last one excepted, have ``sampled`` false. Behind the
    records of a run that an error in the LPU's memory ended, DamagedMemoryError is raised.
    """

    def __init__(self, driver: Driver, seq: int | None, until: int) -> None:
        # seq None: a run that somebody else started; its first frame tells the number.
        self.reason: Reason | None = None
        self.received = 0
        """Records that have arrived."""
        self._driver = driver
        self._seq = seq
        self._until = until
        self._waiting: deque[Record] = deque()
        self._gap = False

    def __next__(self) -> Record:
        while not self._waiting:
            if self.reason is Reason.MEMORY:
                raise DamagedMemoryError(
                    f"generation stopped behind {self.received} tokens, the prompt's included: a word of the LPU's "
                    "weight memory has more wrong bits than can be corrected. The LPU holds no image any more: the "
                    "next use loads it again. Should that not help, its memory is defective"
                )
            if self.reason is not None:
                raise StopIteration
            self._driver._advance(self)
        self._driver._consuming(self)
        return self._waiting.popleft()

    def abort(self) -> None:
        """Ends the run after the token in work; records made until then still come."""
        self._driver.abort()

    @property
    def ids(self) -> Iterator[int]:
        """Token ids sampled, as they come."""
        return (record.token for record in self if record.sampled)

    def _take(self, frame: Frame) -> None:
        """A TOKENS or DONE frame; those of other runs are ignored."""
        if self._seq is None:
            self._seq = frame.seq
        if frame.seq != self._seq:
            return
        if frame.type == Reply.TOKENS:
            first, records = tokens_payload(frame.payload)
            if first > self.received:
                self._gap = True
            else:
                fresh = records[self.received - first :]
                self._waiting.extend(fresh)
                self.received += len(fresh)
        else:
            reason, count = done_payload(frame.payload)
            if count > self.received:
                self._gap = True
            else:
                self.reason = reason


class Driver:
    """One LPU at the other end of ``transport``.

    Args:
        transport: the way there.
        timeout: seconds of silence after which a request is repeated.
        retries: repetitions without progress before giving up with LinkError.
        window: frames sent ahead of their acknowledgement.
        credit: records the LPU may send ahead of the consumer; None: all.
        clock: seconds, of which timeouts are counted.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float = 0.5,
        retries: int = 8,
        window: int = 8,
        credit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= window <= 100:
            raise ValueError(f"window of {window} frames: 1..100 (half the sequence numbers are repetitions)")
        if credit is not None and credit < 2:
            raise ValueError(f"credit of {credit} records: at least 2")
        self.transport = transport
        self.timeout = timeout
        self.retries = retries
        self.window = window
        self.credit = credit
        self._clock = clock
        self.resent = 0
        """Requests sent again since this driver was made."""
        self.context: int | None = None
        """Positions of the program, where ``load`` has seen them; else the hardware's limit counts."""
        self.vocab: int | None = None
        self.sequences: int | None = None
        self._decoder = FrameDecoder()
        self._frames: deque[Frame] = deque()
        self._info: Info | None = None
        # A random start: answers to an earlier program may still lie in the system's buffers.
        self._seq = random.randrange(256)
        self._asked = self._seq
        self._arrived = 0
        self._synced = False
        self._run: Run | None = None

    def close(self) -> None:
        """Gives the transport back."""
        self.transport.close()

    # Requests

    def info(self) -> Info:
        """Asks who is there and agrees on a sequence number. Raises LinkError when no such LPU answers."""
        # Far from the numbers in use, so that no late answer to an old request is taken for a new one's.
        seq = (self._seq + 64) % 256
        self._synced = False
        self._info = Info.decode(self._ask(Request.INFO, seq, Reply.INFO))
        self._seq = seq
        self._synced = True
        return self._info

    def status(self) -> Status:
        """Counters and the busy flag."""
        self._asked = (self._asked + 1) % 256
        return Status.decode(self._ask(Request.STATUS, self._asked, Reply.STATUS))

    counters = status

    @property
    def config(self) -> Config:
        """Config of the hardware. Raises LinkError when this program does not know it."""
        info = self._info or self.info()
        if info.config is None:
            raise LinkError(f"the LPU was built for config {info.config_hash}, unknown to this program")
        return info.config

    def load(self, parts: Iterable[Part], progress: Callable[[int], None] | None = None) -> None:
        """Loads rows: (space, bank, first row, bytes) each.

        ``progress`` is called with the bytes of rows carried out so far. Raises LpuError for rows that do not
        fit this hardware, before the first of them is sent from a part; LinkError when the LPU refuses.
        """
        parts = list(parts)
        payloads = list(load_payloads(self.config, parts))
        head = link.size(Request.LOAD)
        total = 0

        def acknowledged(payload: bytes) -> None:
            nonlocal total
            total += len(payload) - head
            if progress:
                progress(total)

        self._deliver(((Request.LOAD, payload) for payload in payloads), acknowledged)
        for space, _, addr, rows in parts:
            if space == Space.PARAM:
                self._learn(addr, rows)

    def load_image(
        self,
        image: Image,
        progress: Callable[[int, int], None] | None = None,
        placed: Callable[[ImageSection], bool] = lambda section: False,
    ) -> None:
        """Loads an image. While it is loaded the LPU says that it holds none: half of one is never taken for it.

        An LPU that has met an uncorrectable word gets zeros into the rest of its weight memory too, the caches of keys
        and values among it: nothing else would mend a word there.

        ``progress`` is called with (bytes of rows carried out, of so many). ``placed`` may put a section into its
        memory by a way of its own, and then says so: a simulator's large memories. Raises LinkError for an image made
        for other hardware, LpuError for a program that no run could keep, and what :meth:`load` raises.
        """
        info = self._info or self.info()
        if info.config_hash != image.cfg.hash():
            raise LinkError(
                f"{image.label} is for config {image.cfg.name} ({image.cfg.hash()}), the LPU was built for "
                f"{info.config.name if info.config else 'another one'} ({info.config_hash})"
            )
        if info.contract_hash != contract_hash(image.cfg):
            raise LinkError(_OTHER_CONTRACT)
        check_program(image.program(), image.cfg, image.label)
        zero = (Space.PARAM, 0, int(Param.IMAGE), bytes(row_bytes(image.cfg, Space.PARAM)))
        parts: list[Part] = [zero]
        if image.cfg.ecc and self.status().uncorrectable:
            banks, depth = link.space_shape(image.cfg, Space.WEIGHT)
            blank = bytes(depth * row_bytes(image.cfg, Space.WEIGHT))
            parts += [(Space.WEIGHT, bank, 0, blank) for bank in range(banks)]
        parts += image.parts(placed)
        total = sum(len(rows) for *_, rows in parts)
        self.load(parts, (lambda done: progress(done, total)) if progress else None)

    def use_image(self, image: Image, progress: Callable[[int, int], None] | None = None) -> bool:
        """Loads an image unless the LPU holds it already; returns whether it had to. A run in progress is ended."""
        held = self.info().image == image.identity
        if held:
            self.context, self.vocab = image.params.get(Param.CONTEXT), image.params.get(Param.VOCAB)
            self.sequences = image.params.get(Param.SEQUENCES)
        self.stop()
        if not held:
            self.load_image(image, progress)
        return not held

    def run(
        self,
        prompt_ids: Sequence[int],
        limit: int,
        temperature: float = 0.0,
        topk: int = 0,
        seed: int = 0,
        stop_ids: Sequence[int] = (),
        clear: bool = True,
        second: tuple[Sequence[int], int] | None = None,
    ) -> Run:
        """Starts a run; the prompt is processed and at most ``limit`` tokens are sampled after it.

        Args:
            temperature: 0 is greedy.
            topk: sample among the k most likely tokens; 0: among all.
            seed: 0..2**32-1, of the sampling noise.
            stop_ids: at most two ids that end the run when sampled.
            clear: start at position 0; False goes on behind the cached context.
            second: prompt and seed of the second sequence, for an image of two. Its records take turns with the first
                one's, which come first; those behind a sequence's end are not ``sampled``.

        Raises LpuError for a bad argument, before anything is sent.
        """
        cfg = self.config
        context = min(self.context or cfg.context_max, cfg.context_max)
        if self.sequences is not None and (second is not None) != (self.sequences == 2):
            wanted = "two prompts in turn (--second)" if self.sequences == 2 else "one prompt"
            raise LpuError(f"the loaded image works on {wanted}; lpu compile --sequences makes images of either kind")
        parts = run_parts(cfg, prompt_ids, limit, temperature, topk, seed, stop_ids, clear, second,
                          context=context, vocab=self.vocab or cfg.vocab_max)  # fmt: skip
        self.load(parts)
        return self.start()

    def start(self) -> Run:
        """Starts a run with the prompt and the parameters that are loaded."""
        until = link.EVERYTHING if self.credit is None else self.credit
        # Made before the frame is sent: its first records may arrive before its acknowledgement.
        if not self._synced or (self._seq + 1) % 256 == link.BOOT_RUN:
            self.info()
        run = self._run = Run(self, (self._seq + 1) % 256, until)
        self._deliver([(Request.RUN, link.pack(Request.RUN, until=until))])
        return run

    def abort(self) -> None:
        """Ends the run in progress after the token in work; harmless without one."""
        self._deliver([(Request.ABORT, b"")])

    def stop(self) -> None:
        """Ends the run in progress, whoever started it, and waits for its end. Raises LinkError if none comes."""
        if not self.status().busy:
            return
        self.abort()
        deadline = self._clock() + self.timeout * (self.retries + 1)
        while self.status().busy:
            if self._clock() > deadline:
                raise LinkError("the run in progress does not end: reset the LPU")

    def attach(self) -> Run | None:
        """The present run, or the last one, from its first record on; None where there was none since reset."""
        status = self.status()
        if not status.busy and not status.records:
            return None
        self._run = None
        self._deliver([(Request.CREDIT, link.pack(Request.CREDIT, start=0, until=link.EVERYTHING))])
        # Frames before the acknowledgement were sent from another record on, or are of an older run.
        self._run = Run(self, None, link.EVERYTHING)
        return self._run

    # The two kinds of conversation

    def _ask(self, request: Request, seq: int, reply: Reply) -> bytes:
        """A request outside the sequence: repeated until its answer comes."""
        # The delimiter ends whatever half a frame the line holds.
        data = DELIMITER + Frame(request, seq).encode()
        self._arrived = 0
        for attempt in range(self.retries + 1):
            self.transport.write(data)
            self.resent += attempt > 0
            deadline = self._clock() + self.timeout
            while (frame := self._receive(deadline)) is not None:
                if frame.type == reply and frame.seq == seq:
                    return frame.payload
                if frame.type == Reply.ERROR and frame.seq == seq:
                    fault = _fault(frame)[0]
                    if fault not in link.RETRY:
                        raise self._refused(request, fault)
        raise self._silent()

    def _deliver(
        self,
        requests: Iterable[tuple[Request, bytes]],
        acknowledged: Callable[[bytes], None] | None = None,
    ) -> None:
        """Has requests carried out in order, each once: a window of them is on its way at a time.

        Raises LinkError for the first that is refused; those after it were not carried out.
        """
        if not self._synced:
            self.info()
        # Until all are carried out: an interruption (Ctrl-C) leaves numbers of which nobody knows the fate.
        self._synced = False
        waiting: deque[tuple[int, Request, bytes]] = deque()
        source = iter(requests)
        attempts = 0  # timeouts since the last progress
        complained = False  # repeated since then because of an ERROR: more of them say nothing new
        problem = Fault.NONE
        deadline = 0.0
        self._arrived = 0

        def repeat() -> None:
            self.transport.write(DELIMITER + b"".join(Frame(r, s, p).encode() for s, r, p in waiting))
            self.resent += len(waiting)

        while True:
            for request, payload in itertools.islice(source, self.window - len(waiting)):
                self._seq = (self._seq + 1) % 256
                waiting.append((self._seq, request, payload))
                self.transport.write(Frame(request, self._seq, payload).encode())
                deadline = self._clock() + self.timeout
            if not waiting:
                self._synced = True
                return
            frame = self._receive(deadline)
            if frame is None:
                attempts += 1
                if attempts > self.retries:
                    raise self._silent(problem)
                repeat()
                complained = False
                deadline = self._clock() + self.timeout
                continue
            if frame.type == Reply.ACK:
                fault, last = Fault.NONE, frame.seq
            elif frame.type == Reply.ERROR:
                fault, last = _fault(frame)
                problem = fault
            else:
                continue  # a late answer to an older question
            if fault is Fault.RESET:
                raise self._refused(waiting[0][1], fault)
            # Only numbers that are on their way: others come from a device that was reset meanwhile.
            while waiting and (last - waiting[0][0]) % 256 < len(waiting):
                _, _, payload = waiting.popleft()
                attempts, complained = 0, False
                deadline = self._clock() + self.timeout
                if acknowledged:
                    acknowledged(payload)
            if fault in link.RETRY:
                if waiting and not complained:
                    repeat()
                    complained = True
            elif fault and waiting and frame.seq == waiting[0][0]:
                raise self._refused(waiting[0][1], fault)

    @staticmethod
    def _refused(request: Request, fault: Fault) -> LinkError:
        return LinkError(f"the LPU refused {request.name}: {_EXPLAIN.get(fault, fault.name)}")

    def _receive(self, deadline: float) -> Frame | None:
        """The next frame that answers a request, None at the deadline; a run's frames go to the run."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.type not in (Reply.TOKENS, Reply.DONE):
                    return frame
                if self._run is not None:
                    self._run._take(frame)
            rest = deadline - self._clock()
            self._pull(rest)
            if rest <= 0 and not self._frames:
                return None

    def _pull(self, timeout: float) -> bool:
        """Reads what has arrived; False when nothing did within ``timeout`` seconds."""
        data = self.transport.read(max(timeout, 0.0))
        self._arrived += len(data)
        self._frames.extend(self._decoder.feed(data))
        return bool(data)

    def _silent(self, fault: Fault = Fault.NONE) -> LinkError:
        """What to tell the user when ``retries`` were in vain."""
        tries = f"{self.retries + 1} tries of {self.timeout:g} s"
        if fault:
            return LinkError(f"no success in {tries}: the LPU reports {fault.name}; the line loses too much")
        if self._arrived:
            return LinkError(
                f"no answer from an LPU in {tries}, but {self._arrived} bytes of something else: wrong "
                "speed, or another device on this port?"
            )
        return LinkError(
            f"no answer in {tries}: is the LPU powered and connected, is this the right port, does it hold "
            "an LPU's bitstream?"
        )

    # What a run needs

    def _advance(self, run: Run) -> None:
        """Waits until something of the run has arrived, or the line was proved alive."""
        if run is not self._run:
            raise LinkError("this run was left when the next one was started")
        before = run.received, run.reason
        deadline = self._clock() + self.timeout
        while (run.received, run.reason) == before and not run._gap:
            rest = deadline - self._clock()
            if not self._frames and not self._pull(rest) and rest <= 0:
                run._gap = True  # a long token, or the frame with the news was lost
            while self._frames:
                frame = self._frames.popleft()
                if frame.type in (Reply.TOKENS, Reply.DONE):
                    run._take(frame)
        if run._gap and run.reason is None:
            self._grant(run, rewind=True)

    def _consuming(self, run: Run) -> None:
        """Grants more records when, with the next one, half of the credit is used up."""
        if self.credit is not None and run.reason is None:
            taken = run.received - len(run._waiting) + 1
            if run._until - taken <= self.credit // 2:
                run._until = min(taken + self.credit, link.EVERYTHING)
                self._grant(run, rewind=False)

    def _grant(self, run: Run, *, rewind: bool) -> None:
        start = run.received if rewind else link.KEEP
        self._deliver([(Request.CREDIT, link.pack(Request.CREDIT, start=start, until=run._until))])
        if rewind:
            run._gap = False  # whatever came before the acknowledgement was sent before the rewinding

    def _learn(self, addr: int, rows: bytes) -> None:
        """Keeps the parameters that later prompts are checked against."""
        size = row_bytes(self.config, Space.PARAM)
        for i in range(0, len(rows), size):
            value = int.from_bytes(rows[i : i + size], "little")
            match addr + i // size:
                case Param.CONTEXT:
                    self.context = value
                case Param.VOCAB:
                    self.vocab = value
                case Param.SEQUENCES:
                    self.sequences = value


_OTHER_CONTRACT = (
    "the LPU's bitstream was built from another version of the instruction set: program the board again "
    "(lpu program), or use the program that the bitstream came with"
)

_EXPLAIN = {
    Fault.RESET: "it was reset; what was loaded or running may be gone, so start again",
    Fault.BUSY: "a run is in progress; abort it or wait for its end",
    Fault.TYPE: "it does not know this request (another protocol version?)",
}


def _fault(frame: Frame) -> tuple[Fault, int]:
    """(fault, last sequence number carried out) of an ERROR frame."""
    fields = link.unpack(Reply.ERROR, frame.payload)
    return Fault(fields["fault"]), fields["last"]


def run_parts(
    cfg: Config,
    prompt_ids: Sequence[int],
    limit: int,
    temperature: float = 0.0,
    topk: int = 0,
    seed: int = 0,
    stop_ids: Sequence[int] = (),
    clear: bool = True,
    second: tuple[Sequence[int], int] | None = None,
    *,
    context: int,
    vocab: int,
) -> list[Part]:
    """What is loaded before a run: prompt, parameters and 1/T. Arguments as in :meth:`Driver.run`.

    ``context``: positions of the program; ``vocab``: number of ids. Raises LpuError for a bad argument.
    """
    second_ids, second_seed = second or ((), 0)
    if second is not None and cfg.sequences == 1:
        raise LpuError(f"two sequences: config {cfg.name} works on one")
    if second is not None and not clear:
        raise LpuError("two sequences begin at position 0: they do not go on behind a cached context")
    for ids in (prompt_ids, second_ids) if second is not None else (prompt_ids,):
        if not ids:
            raise LpuError("the prompt is empty: it needs at least one token")
        if len(ids) >= context:
            raise LpuError(f"the prompt has {len(ids)} tokens: not shorter than the context of {context}")
    for what, ids in (("prompt", prompt_ids), ("second prompt", second_ids), ("stop", stop_ids)):
        for i, token in enumerate(ids):
            if not 0 <= token < vocab:
                raise LpuError(f"{what} token {i} is {token}: ids are 0..{vocab - 1}")
    if len(stop_ids) > STOP_IDS_MAX:
        raise LpuError(f"{len(stop_ids)} stop ids; the LPU compares with {STOP_IDS_MAX}")
    if limit < 1:
        raise LpuError(f"limit of {limit} tokens: at least 1")
    for number in (seed, second_seed):
        if not 0 <= number < 1 << 32:
            raise LpuError(f"seed {number} is outside 0..{(1 << 32) - 1}")
    if not 0 <= topk <= cfg.topk_max:
        raise LpuError(f"top-k of {topk}: this LPU samples among 1..{cfg.topk_max} tokens, or all (0)")
    if temperature != 0 and not (
        math.isfinite(temperature) and TEMPERATURE_MIN <= temperature <= TEMPERATURE_MAX
    ):
        raise LpuError(f"temperature {temperature}: 0 (greedy) or {TEMPERATURE_MIN:g}..{TEMPERATURE_MAX:g}")
    if temperature == 0 or topk == 1:
        inverse, noise, k = 1.0, 0, 1
    elif topk:
        inverse, noise, k = 1 / temperature, 1, topk
    else:
        inverse, noise, k = 1 / temperature, 2, 1
    if noise and not cfg.noise:
        raise LpuError(f"temperature {temperature}: config {cfg.name} has no sampling noise; 0 (greedy) is all it does")
    stops = [*stop_ids, *[UNUSED_STOP] * STOP_IDS_MAX][:STOP_IDS_MAX]
    values = {
        Param.PROMPT_LEN: len(prompt_ids),
        # A limit that cannot be reached must not look like a small one in the core's counter.
        Param.LIMIT: min(limit, (1 << cfg.position_bits) - 1),
        Param.SEED: seed,
        Param.TOPK: k,
        Param.NOISE: noise,
        Param.STOP0: stops[0],
        Param.STOP1: stops[1],
        Param.CLEAR: int(clear),
        Param.PROMPT_LEN1: len(second_ids),
        Param.SEED1: second_seed,
    }
    size = row_bytes(cfg, Space.PARAM)
    width = row_bytes(cfg, Space.PROMPT)
    first = min(values)
    assert sorted(values) == list(range(first, first + len(values))), "one LOAD takes consecutive rows"
    rows = [a | b << PROMPT_BITS for a, b in itertools.zip_longest(prompt_ids, second_ids, fillvalue=0)]
    params = b"".join(values[param].to_bytes(size, "little") for param in sorted(values))
    return [
        (Space.PROMPT, 0, 0, b"".join(row.to_bytes(width, "little") for row in rows)),
        (Space.PARAM, 0, first, params),
        (Space.CONST, 0, TEMPERATURE_SCALAR, scalar_row(inverse)),
    ]
