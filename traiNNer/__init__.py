"""traiNNer: training of super-resolution networks."""

__version__ = "0.1.0"
