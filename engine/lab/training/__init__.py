"""Trains the demo models: corpus, tokenizer, teacher, its own text, EAGLE-3 head, exit head, measurement, card."""
