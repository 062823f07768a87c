"""The embedded world: scenes, knowledge, questions, search, and an expert.

Everything in it follows from a scope (knowledge.py says how one is written), so
a question, its picture and the corpus its searches run in can be made anew
anywhere.
"""
