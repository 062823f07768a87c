"""Package metadata. Each dependency says why it is here."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.+)'", (ROOT / 'gog_jax' / '__init__.py').read_text()
).group(1)

INSTALL_REQUIRES = [
    'absl-py',  # Flags and logging.
    'aiohttp>=3.12',  # HTTP, as a client and as a server.
    'array_record>=0.8',  # The file format of TFDS sets, without TensorFlow.
    'bm25s>=0.2',  # Text retrieval.
    'etils[epath]>=1.9',  # Local and gs:// paths alike.
    'faiss-cpu>=1.8',  # Nearest vectors of a local index.
    'filelock>=3.12',  # One build of a local index at a time.
    'flax>=0.12.4',  # Modules (nnx).
    'grain>=0.2.12',  # Input pipelines that resume exactly.
    'huggingface_hub>=0.34',  # Fetches models that are given by their id.
    'immutabledict>=4.2',  # Mappings of a frozen config.
    'importlib_resources',  # TFDS needs it and does not say so.
    'jax>=0.10',
    'jaxtyping>=0.3',  # Shapes on signatures.
    'jinja2>=3.1',  # The HTML report's template.
    'jsonschema>=4.20',  # Checks the arguments of tool calls.
    'ml-collections>=1.1',  # Configs.
    'ml_dtypes',  # bfloat16 in NumPy, for weights files.
    'numpy>=2.0',
    'opencv-python-headless>=4.8',  # Local descriptors and their geometry.
    'optax>=0.2.6',
    'orbax-checkpoint>=0.11.28',  # Checkpoints.
    'pillow>=11',  # Image decoding and drawing.
    'pyarrow>=18',  # Parquet files that others wrote.
    'regex>=2024.4',  # Words by Unicode's properties of scripts and marks.
    'rich>=13',  # The report's table.
    'safetensors>=0.6',  # Adapter files; features of a local index.
    'scipy>=1.13',  # Intervals of what is reported.
    'tenacity>=9',  # Retries with backoff.
    'tensorboardX>=2.6',  # Event files, without TensorFlow.
    'tensorflow-datasets>=4.9.9',  # Data sets; never with TensorFlow.
    'tokenizers>=0.21',  # Runs tokenizer.json.
    'tqdm>=4.66',  # Progress bars.
]

EXTRAS_REQUIRE = {
    'tpu': ['jax[tpu]>=0.10'],
    'cuda': ['jax[cuda13]>=0.10'],
    'test': [
        'hypothesis>=6',  # Random cases for parsers and boxes.
        # The TPU's compiler; it needs no TPU.
        'libtpu>=0.0.52; sys_platform=="linux" and platform_machine=="x86_64"',
        'peft>=0.18',  # Oracle of adapter files; never at run time.
        'pyright[nodejs]>=1.1.400',  # Type checker.
        'pytest>=8',
        'pytest-timeout>=2.3',  # A hung test fails instead of hanging CI.
        'pytest-xdist>=3.6',  # One worker a core.
        'ruff>=0.12',  # Linter.
        # Photographs to search for; never at run time.
        'scikit-image>=0.22',
        'scikit-learn>=1.4',
        'tensorboard>=2.16',  # Reads event files back.
        'torch==2.13.0',  # Oracle, with transformers; never at run time.
        'transformers>=5.0',  # Oracle of models, tokenizers and images.
    ],
}

setuptools.setup(
    name='gog_jax',
    version=VERSION,
    description='Glance-or-Gaze visual search agents, trained and run in JAX.',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['gog_jax', 'gog_jax.*']),
    package_data={
        'gog_jax': [
            'assets/*/*',
            'assets/published/*/*',
            'chat/dialects/*.json',
            'judge/prompt.txt',
            'language/spellings.json',
            '*/templates/*',
        ],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
