"""An LLM judge: is an answer right where it is not an exact match?"""
