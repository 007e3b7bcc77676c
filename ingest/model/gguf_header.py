"""What a GGUF file's header says, and what of it `transformers` does not read: that is refused, or made up for here.

The library's reader passes over tensors and settings that it does not know, and splits text as GPT-2 does where it does
not know the file's own way. Each of these would load another model than the file's.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS, read_gguf_metadata
from transformers.integrations.gguf.dequant import GGML_NAME
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.integrations.gguf.reader import GgufHeader

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import ModelFolder
from rare_tokens.ingest.model.reading import reading
from rare_tokens.ingest.model.weight_names import Shape

_PLAIN_TYPES = {0: "F32", 1: "F16", 30: "BF16"}
BYTE_LEVEL = "gpt2"  # `tokenizer.ggml.model` of byte-level tokenizers, which alone have several ways to split

# Ways to split text before merging, as llama.cpp names them: like GPT-2; or each digit by itself, then like GPT-2.
_LIKE_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "mellum", "modern-bert", "roberta-bpe"}
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}

# Settings that change what a model computes, and the values with which they do not.
_CHANGES = re.compile(
    r"rope\.scaling\.(?!original|finetuned)|sliding_window|softcapping|expert|scale$|clamp_kqv|alibi|nextn|swa$"
)
_WITHOUT_EFFECT = (0, 0.0, 1.0, None, "", "none", False)


@dataclass(frozen=True)
class Header:
    """The header of a model's GGUF file.

    Attributes:
        settings: its metadata by key; of the long lists only their length.
        shapes: of each tensor, by its name.
        types: how each tensor is stored.
    """

    settings: dict[str, Any]
    shapes: dict[str, Shape]
    types: dict[str, str]

    @classmethod
    def of(cls, found: ModelFolder) -> "Header":
        """Read it.

        Raises:
            UserError: it cannot be read, or says nothing of an architecture.
        """
        assert found.gguf is not None
        path = str(found.path / found.gguf)
        with reading(f"--model {found.name}: its header cannot be read as GGUF", "Download the file again."):
            settings, _ = read_gguf_metadata(path)
            tensors = GgufHeader.from_file(path).tensors
        names = {**GGML_NAME, **_PLAIN_TYPES}
        types = {one.name: names.get(one.ggml_type, f"type {one.ggml_type}") for one in tensors}
        return cls(dict(settings), {one.name: tuple(one.shape) for one in tensors}, types)

    @property
    def architecture(self) -> str:
        """As llama.cpp names it."""
        return str(self.settings.get("general.architecture"))

    @property
    def quantisation(self) -> str:
        """How the weights are stored, most values first, for example ``Q4_1 (210 tensors), Q8_0 (1 tensor)``."""
        values: Counter[str] = Counter()
        for name, kind in self.types.items():
            values[kind] += math.prod(self.shapes[name])
        tensors = Counter(self.types.values())
        return ", ".join(
            f"{kind} ({tensors[kind]} tensor{'s' * (tensors[kind] != 1)})" for kind, _ in values.most_common()
        )

    def refuse_unread(self, found: ModelFolder) -> None:
        """Refuse settings that change what the model computes and that the library does not read.

        Raises:
            UserError: with the first of them and its value.
        """
        if self.architecture in GGUF_CONFIG_ARCHS:
            return  # the library's newer reader, which refuses what it does not know
        read = GGUF_CONFIG_MAPPING.get(self.architecture, {})
        prefix = f"{self.architecture}."
        for key, value in self.settings.items():
            setting = key.removeprefix(prefix)
            is_unread = key.startswith(prefix) and setting not in read
            if is_unread and _CHANGES.search(setting) and value not in _WITHOUT_EFFECT:
                raise UserError(
                    f"--model {found.name}: its setting {key[:80]} = {str(value)[:40]} is not read from GGUF, so "
                    "another model would be measured. Use the model's original folder."
                )

    def not_taken(self, model: PreTrainedModel) -> list[str]:
        """Names of tensors that no weight of a loaded model was made from, sorted; empty where none is over."""
        values = sum(weight.numel() for weight in model.parameters())
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        if sum(sizes.values()) <= values:
            return []
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

        known: set[str] = set()
        if self.architecture not in GGUF_CONFIG_ARCHS:
            processor = TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)(config=model.config.to_dict())
            known = set(get_gguf_hf_weights_map(model, processor))
        return sorted(set(sizes) - known) or sorted(sizes, key=lambda name: sizes[name])[:1]

    def split_as_the_file(self, found: ModelFolder, tokenizer: PreTrainedTokenizerBase) -> None:
        """Let a byte-level tokenizer split text as its file says, where the library has not.

        Raises:
            UserError: the way is none that is known here.
        """
        if self.settings.get("tokenizer.ggml.model") != BYTE_LEVEL:
            return
        way = str(self.settings.get("tokenizer.ggml.pre", "none"))
        if way in _SINGLE_DIGITS:
            digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
        elif way not in _LIKE_GPT2 and way not in GGUF_PRE_TOKENIZER_SPLITS:
            raise UserError(
                f"--model {found.name}: how its tokenizer splits text (tokenizer.ggml.pre = {way[:40]}) is not known "
                "here. Use the model's original folder, which has a tokenizer.json."
            )
