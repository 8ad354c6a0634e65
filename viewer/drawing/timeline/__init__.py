"""What the stages of a pipelined run did and when: tokens on their way, drawn over time."""
