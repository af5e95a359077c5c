"""Flags with which XLA compiles fast, for the tests and the processes they start."""

import importlib.metadata

# Without fusion emitters, a train step compiles in 6 seconds of processor time instead
# of 17; without splitting modules for parallel code generation, the contract tests take
# a fifth less. Later versions of jaxlib may not know the flags, and refuse them then.
_FAST = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
_KNOWN = importlib.metadata.version("jaxlib") < "0.11"
DEVICES = "--xla_force_host_platform_device_count={} " + (_FAST if _KNOWN else "")
