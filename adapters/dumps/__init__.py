"""What other engines write about their requests, as traces. Which can be judged how far stands in docs/adapters.md."""
