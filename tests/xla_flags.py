"""XLA flags of the tests, for this process and for processes that it starts."""

import importlib.metadata

# Compiles a train step in 6 s of processor time instead of 17 s; removed in 0.11.
_FAST = "--xla_cpu_use_fusion_emitters=false"
_KNOWN = importlib.metadata.version("jaxlib") < "0.11"
DEVICES = "--xla_force_host_platform_device_count={} " + (_FAST if _KNOWN else "")
