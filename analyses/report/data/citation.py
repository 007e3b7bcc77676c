"""BibTeX for the runs of a page, the program, and the papers."""

import re
from typing import Any

from rare_tokens.common.version import VERSION

Row = dict[str, Any]

PAPERS = """@misc{liu2025emergent,
  title = {Emergent Specialization: Rare Token Neurons in Language Models},
  author = {Liu, Jing and Wang, Haozheng and Li, Yueheng},
  year = {2025},
  eprint = {2505.12822},
  archivePrefix = {arXiv}
}
@misc{liu2025distributed,
  title = {Distributed Specialization: Rare-Token Neurons in Large Language Models},
  author = {Liu, Jing and Wang, Haozheng and Li, Yueheng},
  year = {2025},
  eprint = {2509.21163},
  archivePrefix = {arXiv}
}
@misc{liu2025clustering,
  title = {No Clustering, No Routing: How Transformers Actually Process Rare Tokens},
  author = {Liu, Jing},
  year = {2025}
}"""


def bibtex(runs: list[Row]) -> str:
    """An entry for each of some runs (`dim_run`), for the program and for the papers."""
    return "\n".join([*map(_run, runs), _program(), PAPERS])


def _run(run: Row) -> str:
    key = re.sub(r"[^A-Za-z0-9-]", "-", str(run["run_id"]))
    made = str(run["created_at"] or "")[:4]
    year = f"\n  year = {{{made}}}," if made else ""
    note = f"Run {_plain(run['run_id'])}; corpus {_plain(run['corpus'])}"
    return f"""@misc{{{key},
  title = {{Effects of ablating every neuron of layer {run["layer"]} of {_plain(run["model"])}}},{year}
  note = {{{note}; made with Rare Token Neurons {run["code_version"]}}}
}}"""


def _program() -> str:
    return f"""@software{{rare_token_neurons,
  title = {{Rare Token Neurons}},
  version = {{{VERSION}}}
}}"""


def _plain(value: object) -> str:
    """A text in which TeX finds no command."""
    return re.sub(r"([&%$#_{}])", r"\\\1", re.sub(r"[\\~^]", "-", str(value)))
