"""Vision-language backbones: load, make and save them.

    model, config = models.from_pretrained(folder, dtype=jnp.bfloat16)
"""

from gog_jax.models.config import VLMConfig as VLMConfig
from gog_jax.models.folders import local_folder as local_folder
from gog_jax.models.hf_config import published_config as published_config
from gog_jax.models.hf_config import read_config as read_config
from gog_jax.models.hf_params import from_pretrained as from_pretrained
from gog_jax.models.hf_params import save_pretrained as save_pretrained
from gog_jax.models.logprobs import token_logprobs as token_logprobs
from gog_jax.models.lora import add_lora as add_lora
from gog_jax.models.lora import split as split
from gog_jax.models.peft_files import load_adapters as load_adapters
from gog_jax.models.peft_files import save_adapters as save_adapters
from gog_jax.models.rope import mrope_positions as mrope_positions
from gog_jax.models.vision import pack_images as pack_images
from gog_jax.models.vlm import abstract as abstract
from gog_jax.models.vlm import init as init
from gog_jax.models.vlm import VLM as VLM
