"""Public figures beside which a table may be read, and where none exists for the same stream and backbone."""

from collections.abc import Mapping
from types import MappingProxyType

_MNIST = (
    "The public figures on this kind of stream, such as those of van de Ven and Tolias 2019 (arXiv 1904.07734) and of "
    "Buzzega et al. 2020 (arXiv 2004.07211), train a network of their own from scratch on all 60,000 images. None was "
    "found for the 5,000 images that are used here with a frozen backbone, and none is given."
)

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "digits5": "The stream is this project's own, made of scikit-learn's 1,797 digits: there is no public figure.",
        "split_mnist5": _MNIST,
        "rotated_mnist10": _MNIST,
        "clinc150": (
            "No figure was found for ten domains of 15 intents on a frozen MiniLM. Abrahamyan and Kumar 2026 (arXiv "
            "2603.18641) split CLINC150 into ten tasks with labels of their own too, on feed-forward, recurrent and "
            "Transformer encoders, which is another backbone: their figures are not to be held against these."
        ),
        "newsgroups10": (
            "No figure was found for these ten pairs on a frozen MiniLM. The nearest is CTR (Ke et al. 2021, arXiv "
            "2112.02706), ten tasks of 20 Newsgroups, task-incremental, on BERT-base with adapters: backbone, data per "
            "task and measure differ, so its figures are not to be held against these."
        ),
    }
)


def figure(experiment: str) -> str:
    """A paragraph on what is public for a stream; says that nothing was looked up for any other."""
    return FIGURES.get(experiment, "No public figure was looked up for this stream.")
