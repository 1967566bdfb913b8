"""Every bench of the matrix. Adding one is one line here; see verification/README.md."""

from __future__ import annotations

from verification.echo import Echo
from verification.runner import Bench

BENCHES = [
    Bench("selftest", lambda cfg: Echo(), "verification.bench_selftest"),
]
