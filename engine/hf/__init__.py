"""Tree decoding inside transformers: ``tree_generate`` and ``TreeGenerate``."""

from specscope.engine.hf.generate import TreeGenerate, tree_generate

__all__ = ["TreeGenerate", "tree_generate"]
