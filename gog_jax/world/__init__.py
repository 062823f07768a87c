"""The embedded world: scenes, knowledge, questions, search, and an expert.

Everything in it follows from a scope such as `world/3/train/7`, so a question,
its picture and the corpus its searches run in can be made anew anywhere.
"""
