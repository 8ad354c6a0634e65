"""``python -m specscope``: the ``specscope`` command."""

from __future__ import annotations

from specscope.tracer.cli.main import main

if __name__ == "__main__":
    main()
