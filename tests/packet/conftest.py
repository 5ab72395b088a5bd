from __future__ import annotations

from hypothesis import settings

# The same examples on every run; no deadline, since a busy machine is no fault of the code.
settings.register_profile("mfd", derandomize=True, deadline=None)
settings.load_profile("mfd")
