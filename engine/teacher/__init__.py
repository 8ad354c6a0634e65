"""The model whose tokens count: its forward over a tree, its files, its parts."""
