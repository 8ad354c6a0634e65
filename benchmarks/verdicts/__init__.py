"""How often an honest pair is called different, and how small a numeric fault is found.

    python -m benchmarks.verdicts record FOLDER     runs, kept; what is there is not run again
    python -m benchmarks.verdicts judge FOLDER      the tables, from the runs that are there

``cells`` says what is decoded, ``settings`` where, ``models`` makes teachers of other widths, ``record`` decodes, and
``judge`` compares.
"""
