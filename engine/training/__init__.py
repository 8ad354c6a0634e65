"""Trains the demo models: corpus, tokenizer, teacher, self-generated text, EAGLE-3 head, measurement, model card."""
