"""Whether two checkpoints are the same model: a hash over what decides every number that a run measures."""

import hashlib
import json

from rare_tokens.ingest.model.files import ModelFolder, Trust, config_values, file_hash, weight_files

# What a configuration says about who wrote it and how, not about what the model computes: the precision is ours to
# choose, and a forward pass without generation keeps no cache.
TRIVIAL = ("_name_or_path", "_commit_hash", "transformers_version", "torch_dtype", "dtype", "use_cache")


def weights_hash(found: ModelFolder, trust: Trust) -> str:
    """sha256 over the contents of the weight files and what matters of the configuration, hex.

    Unlike `model_hash`, it is the same where a checkpoint was only saved again by another version of a library.
    """
    config = {name: value for name, value in config_values(found).items() if name not in TRIVIAL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    files = weight_files(found.path, trust) if found.gguf is None else [found.path / found.gguf]
    for file in files:
        digest.update(f"{file.name} {file_hash(file)}".encode())
    return digest.hexdigest()
