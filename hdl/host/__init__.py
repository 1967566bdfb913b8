"""The host link: the only part of the LPU with valid and ready, and the only one that waits for anybody.

Bytes come in through :mod:`.cobs` and :mod:`.frame`, are judged and carried out by :mod:`.loader`, and are
answered by :mod:`.transmitter`; :mod:`.records` keeps a run's tokens and :mod:`.counters` counts.
:mod:`.host` wires them. The protocol is :mod:`hdl.link`'s.
"""
