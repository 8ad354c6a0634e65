"""A tree-speculating engine in plain Python, which records what it decides: ``python toy_engine.py TRACE [--bug]``.

Its teacher is a rule for the next token. Its drafter remembers which tokens followed a token, and proposes a small tree
of them. Lines marked ``# record``, and the last two functions before ``main``, are all that recording adds.
"""

from __future__ import annotations

import sys
from collections import defaultdict

from specscope.tracer import Recorder  # record

VOCAB = 50
DEPTH, TOP_K, BUDGET = 3, 2, 6
MAX_NEW_TOKENS = 24
PROMPTS = {"squares": [1, 4, 9, 16], "odd": [1, 3, 5, 7]}


class Teacher:
    """The model whose output must be preserved: a score for every next token, given the last two."""

    def scores(self, before: int, last: int) -> list[float]:
        """One for each token of the vocabulary."""
        best = (3 * last + before % 3) % 8  # few tokens, so that they come again
        return [3.0 - 0.25 * ((token - best) % VOCAB) for token in range(VOCAB)]


class Drafter:
    """Proposes what followed a token before, the latest first."""

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = defaultdict(list)

    def learn(self, before: int, token: int) -> None:
        """Takes note that ``token`` came after ``before``."""
        self.seen[before] = [token, *(other for other in self.seen[before] if other != token)]

    def tree(self, root: int) -> tuple[list[int], list[int]]:
        """Tokens and parents by slot; slot 0 is the root."""
        tokens, parents, level = [root], [0], [0]
        for _ in range(DEPTH):
            below = []
            for slot in level:
                for token in self.seen[tokens[slot]][:TOP_K]:
                    if len(tokens) <= BUDGET:
                        below.append(len(tokens))
                        tokens.append(token)
                        parents.append(slot)
            level = below
        return tokens, parents


def visible(parents: list[int], *, bug: bool) -> list[list[int]]:
    """The slots that each slot sees: its ancestors and itself. The bug: it sees the slot before it as its parent."""
    rows = [[0]]
    for slot in range(1, len(parents)):
        parent = slot - 1 if bug else parents[slot]
        rows.append([*rows[parents[slot]][:-1], parent, slot])
    return rows


def verify(teacher: Teacher, context: list[int], tokens: list[int], seen: list[list[int]]) -> list[list[float]]:
    """The teacher's scores at every slot, each after the last token that it sees."""
    return [teacher.scores(tokens[row[-2]] if len(row) > 1 else context[-1], tokens[row[-1]]) for row in seen]


def accept(tokens: list[int], parents: list[int], argmax: list[int]) -> list[int]:
    """The slots along the teacher's choices, without the root."""
    path, at = [], 0
    for slot in range(1, len(tokens)):
        if parents[slot] == at and tokens[slot] == argmax[at]:
            path.append(at := slot)
    return path


def best(scores: list[float]) -> int:
    """The token with the highest score."""
    return max(range(VOCAB), key=lambda token: scores[token])


def decode(trace: Recorder, name: str, prompt: list[int], *, bug: bool = False) -> list[int]:
    """Greedy decoding by draft trees; gives the output."""
    teacher, drafter = Teacher(), Drafter()
    output = [best(teacher.scores(prompt[-2], prompt[-1]))]
    turn = trace.turn(name, prompt, pending_token=output[0])  # record
    while len(output) < MAX_NEW_TOKENS:
        context = prompt + output[:-1]  # what is committed; the pending token is the tree's root
        tokens, parents = drafter.tree(output[-1])
        seen = visible(parents, bug=bug)
        rows = verify(teacher, context, tokens, seen)
        argmax = [best(row) for row in rows]
        path = accept(tokens, parents, argmax)
        bonus = argmax[path[-1] if path else 0]
        emitted = [*(tokens[slot] for slot in path), bonus]
        kept = min(len(emitted), MAX_NEW_TOKENS - len(output))
        tree = {"tokens": tokens, "parents": parents}  # record
        walk = {"path": path, "bonus_token": bonus, "emitted": emitted, "kept": kept}  # record
        more = {"verify": two_best(rows), "tensors": fed(context, tokens, seen)}  # record
        turn.step(**tree, argmax=argmax, **walk, **more)  # record
        for token in emitted[:kept]:
            drafter.learn(output[-1], token)
            output.append(token)
    turn.end("length", output_ids=output)  # record
    return output


def two_best(rows: list[list[float]]) -> dict[str, list[list[int]] | list[list[float]]]:
    """What lets a diff tell a tie from a mistake: the two best tokens of each slot, with their logits."""
    tokens = [sorted(range(VOCAB), key=lambda token: -row[token])[:2] for row in rows]
    return {"top_tokens": tokens, "top_logits": [sorted(row)[:-3:-1] for row in rows]}


def fed(context: list[int], tokens: list[int], seen: list[list[int]]) -> dict[str, object]:
    """What the forward was given: positions, and the mask as bits, lowest first."""
    size = (len(tokens) + 7) // 8
    return {
        "committed_length": len(context),
        "num_slots": len(tokens),
        "padded_slots": len(tokens),
        "mask_rows": [sum(1 << slot for slot in set(row)).to_bytes(size, "little").hex() for row in seen],
        "prefix_visible": [len(context)] * len(tokens),
        "positions": [len(context) + len(row) - 1 for row in seen],
        "token_ids": tokens,
        "index_tensors": {},
    }


ABOUT = {  # record
    "sections": ["tree", "tensors", "verify", "accept", "stop"],
    "engine": "toy 1.0",
    "mode": "fused",
    "dtype": "float64",
    "device": {"backend": "cpu", "name": "any"},
    "teacher": {"name": "table", "architecture": "Table", "vocab_size": VOCAB},
    "drafter": {"kind": "ngram"},
    "tree_policy": {"kind": "dynamic", "depth": DEPTH, "top_k": TOP_K, "budget": BUDGET, "adaptive": True},
    "stop_rules": {"max_new_tokens": MAX_NEW_TOKENS, "eos_token_ids": [], "stop_strings": []},
}


def main(path: str, *, bug: bool) -> None:
    """Decodes and records both prompts."""
    with Recorder(path, overwrite=True, **ABOUT) as trace:  # record
        for name, prompt in PROMPTS.items():
            print(name, decode(trace, name, prompt, bug=bug))


if __name__ == "__main__":
    main(sys.argv[1], bug="--bug" in sys.argv)
