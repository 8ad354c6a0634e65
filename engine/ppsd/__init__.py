"""Pipelined early-exit self-speculation: stages that verify each token while the first one drafts the next."""
