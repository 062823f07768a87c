"""An LLM judge: is an answer right where no accepted one says the same?"""
