"""What has to stand in the environment before jax is imported."""

# A CPU traces; libtpu asks nobody what machine this is, does not complain of
# it, and lets others compile at the same time.
ENVIRONMENT = {
    'JAX_PLATFORMS': 'cpu',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
