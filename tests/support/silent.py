"""Invariants that say nothing of the sample runs."""

from __future__ import annotations

#: Say nothing of a greedy run.
ABOUT_DRAWS = {
    *("accept.trials", "accept.coins-distinct", "accept.thresholds", "accept.target-probs"),
    *("accept.probs-follow-logits", "accept.draft-probs", "run.coins-fresh", "rows.draws-anew"),
}
#: Of what the format has a place for since 1.3.
ABOUT_CUSTODY = {"draft.cache-kept", "commit.prefix-kept"}
#: Of what turns say of their rows since 1.4.
ABOUT_ROWS = {"rows.free-when-taken", "rows.nothing-kept"}
#: Need a paged cache.
ABOUT_BLOCKS = {
    *("paging.table-read", "paging.table-covers", "paging.no-leak", "paging.freed-once", "paging.shared-alike"),
}
#: Say nothing of a run that no grammar guides.
ABOUT_GRAMMARS = {
    *("guided.slots", "guided.masks-applied", "guided.rolled-back", "guided.path-allowed", "guided.advances"),
    "guided.state-continues",
}
#: Need texts, captured forwards, costs, a table of shapes, drafts cut short, layers that slide, several drafters, a
#: paged cache, a grammar, several ranks, or a run that records only lengths.
NOT_HERE = {
    *ABOUT_BLOCKS,
    *ABOUT_GRAMMARS,
    *("turn.stop-strings", "verify.graph-length", "tree.size-pays", "turn.depth-limits", "verify.windows"),
    *("lengths.accepted-of-drafted", "draft.shape-pays", "tree.proposed-by", "tree.lookup-is-in-text"),
    *("ranks.agree", "ranks.recorded"),
}
#: Of what the format has a place for since 1.2.
ABOUT_FEATURES = {"draft.features-are-committed", "verify.feature-layers"}
