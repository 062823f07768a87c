"""Settings that must precede the first import of jax."""

from __future__ import annotations

import os

_FLAGS = (
    # Eight simulated devices for the tests of sharding; others use the first.
    '--xla_force_host_platform_device_count=8',
    # Tests compile for longer than they run: this halves the compile time.
    '--xla_backend_optimization_level=0',
)
# What the caller has set comes last, and wins.
os.environ['XLA_FLAGS'] = ' '.join([*_FLAGS, os.environ.get('XLA_FLAGS', '')])
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# No test may reach for the network, not even to look for a newer file.
os.environ.setdefault('HF_HUB_OFFLINE', '1')
