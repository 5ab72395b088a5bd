"""What must never happen, watched in every event of a simulated world; what must happen, in time.

    S safety, L liveness, R resources: overlay invariants, one module a layer

Rules of this package: it reads disks, frames and, through `sim.insight`, peers; it touches nothing.
A breach raises Violation.
"""

from mfd.sim.checks.custody import Custody
from mfd.sim.checks.watch import Watch
from mfd.sim.violation import Violation

__all__ = ["Custody", "Violation", "Watch"]
